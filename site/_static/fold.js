// Columns for which a page is too narrow go behind a fold. On a phone, and without this script, tables scroll.
function fold(table) {
  const box = table.parentElement;
  if (table.classList.contains("folded") || table.offsetWidth <= box.clientWidth) {
    return;
  }
  table.classList.add("folded");
  const columns = table.rows[0].cells.length;
  let kept = columns;
  while (kept > 2 && table.offsetWidth > box.clientWidth) {
    kept -= 1;
    for (const row of table.rows) {
      row.cells[kept]?.classList.add("more");
    }
  }
  const details = document.createElement("details");
  details.className = "columns";
  details.append(Object.assign(document.createElement("summary"), { textContent: `${columns - kept} more columns` }));
  details.addEventListener("toggle", () => table.classList.toggle("unfolded", details.open));
  (box.matches(".pst-scrollable-table-container") ? box : table).before(details);
}

function foldAll(root) {
  root.querySelectorAll(".bd-article table").forEach(fold);
}

if (matchMedia("(min-width: 577px)").matches) {
  addEventListener("load", () => foldAll(document));
  document.addEventListener("toggle", () => foldAll(document), true); // a table in a closed fold has no width yet
}
