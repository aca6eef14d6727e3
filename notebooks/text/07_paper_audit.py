# ---
# jupyter:
#   jupytext:
#     formats: ipynb,text//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Do the paper's numbers fit each other? An audit by arithmetic
#
# **Question.** Can the printed numbers all be true? Asking this takes no data: which numbers of images, which confusion matrices, and which averages could have produced them, and does the text follow from the tables?
#
# | | |
# | --- | --- |
# | Paper | Tables 1 to 5, the abstract, Sections 2.2, 3.1, 3.3 and 3.4 |
# | Reads | `ruranet_utils/published.py`, which holds every printed number |
# | Writes | `table_audit`, `table_audit_rows`, `table_audit_text` (csv, md); `fig_audit_sizes` |
# | Needs | 10 s, 1.7 GB; no data, no weights, the same on every profile |
#
# An accuracy over $n$ images is a whole number of correct answers divided by $n$ (the GRIM test: granularity-related inconsistency of means). So a row is possible only if there are whole numbers $TP, FP, FN, TN$ with
#
# $$n = TP + FP + FN + TN, \qquad \mathrm{round}\Big(\frac{TP + TN}{n}\Big) = \text{accuracy},$$
#
# $$\mathrm{round}\Big(\frac{TP}{TP + FP}\Big) = \text{precision}, \qquad \mathrm{round}\Big(\frac{TP}{TP + FN}\Big) = \text{recall},$$
#
# $$\mathrm{round}\Big(\frac{2\,TP}{2\,TP + FP + FN}\Big) = \mathrm{F1},$$
#
# where round means rounding to the four decimals that the paper prints. The scores may also be means over both classes (`macro`; `weighted` by the number of images of each class), or over three classes, one of which has no images and therefore scores 0; that mean is two thirds of the mean over two. And since only the accuracy counts true negatives, every mask satisfies
#
# $$\mathrm{IoU} = \frac{TP}{TP + FP + FN} \le \frac{TP + TN}{n} = \text{accuracy}.$$
#
# A printed score stands for every value that rounds to it, so we call nothing impossible that rounding allows. **What follows is arithmetic.** It shows which numbers cannot all be true, not how they came about: a typo, two versions of a test set, or two scripts with different defaults would all look like this.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ruranet_utils import published
from ruranet_utils.evidence.audit import audit_classification, audit_segmentation
from ruranet_utils.evidence.claims import judge
from ruranet_utils.evidence.grim import confusion_matrices, possible_sizes, rounds_to
from ruranet_utils.profiles import DISPLAY, METHODS
from ruranet_utils.published import CLASSIFICATION, TEXT
from ruranet_utils.reporting.figures import PALETTE
from ruranet_utils.reporting.tables import show
from ruranet_utils.running.start import start

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Which confusion matrices produce a row?
#
# We try all of them, for up to 400 images, half in each class as in the paper (151 + 151), and four ways of averaging precision, recall, and F1: class 1 alone (`positive`), both classes (`weighted`; `macro`), and three classes, one of which has no images (`macro of three`: what scikit-learn returns if two classes are assigned to three clusters).

# %%
table_3, table_4, table_5 = (table() for table in (published.table_3, published.table_4, published.table_5))
named = {
    "Table 3": table_3.assign(row=table_3["backbone"].map(DISPLAY)),
    "Table 4": table_4.assign(row=table_4["method"].map(DISPLAY) + " + " + table_4["backbone"].map(DISPLAY)),
    "Table 5": table_5.assign(row=table_5["variant"]),
}
printed = pd.concat([table.assign(table=name) for name, table in named.items()])
audited = audit_classification(printed[["table", "row", *CLASSIFICATION]], decimals=4)
rows = audited.assign(sizes=audited["sizes"].map(lambda sizes: " ".join(map(str, sizes))))
rows["averages"] = audited["averages"].map(", ".join)
show(run.save_table(rows, "table_audit_rows"), "Numbers of images and averages that produce the printed row")

# %% [markdown]
# ## Figure · How many images were scored?
#
# Each dot is a number of images, up to 400, that can produce the printed row. The rows of one table should share a number: those of Table 3 share 62, but the rows of Table 4 share none, nor do those of Table 5. For two rows no number works (crosses).

# %% alt="For every row of Tables 3, 4, and 5, the numbers of images up to 400 that can produce it, as dots; dashed lines at 62, 150, and 302 images; two rows of Table 4 have none."
fig, ax = plt.subplots(figsize=(8, 7.5))
colors = {"Table 3": PALETTE[0], "Table 4": PALETTE[2], "Table 5": PALETTE[1]}
for y, (table, sizes) in enumerate(zip(audited["table"], audited["sizes"], strict=True)):
    ax.plot(sizes or [12], [y] * max(1, len(sizes)), "o" if sizes else "x", color=colors[table])
for n in (62, 150, 302):
    ax.axvline(n, color="gray", linestyle="--", linewidth=1)
    ax.text(n, -1.2, str(n), ha="center", va="bottom", color="gray")
ax.set(xlabel="images", xlim=(0, 405), ylim=(len(audited) - 0.3, -1.2))
ax.set_yticks(range(len(audited)), audited["table"].str[-1] + " · " + audited["row"], fontsize=9)
handles = [plt.Line2D([], [], marker="o", linestyle="", color=color) for color in colors.values()]
_ = ax.legend(handles, colors, loc="lower right", bbox_to_anchor=(1, 1.02), ncol=3)
fig.tight_layout()
run.save_figure(fig, "fig_audit_sizes")

# %% [markdown]
# ## Segmentation: what holds for every mask
#
# IoU can exceed neither the accuracy (which also counts correctly ignored background) nor the precision (which does not count missed pixels), whether for one image or for a mean over many.

# %%
pixels = pd.concat([published.table_1().assign(table="Table 1"), published.table_2().assign(table="Table 2")])
pixels = audit_segmentation(pixels, decimals=4)
show(pixels.groupby(["table", "verdict"]).size().rename("rows").reset_index(), "IoU against accuracy and precision")

# %% [markdown]
# ## Paper versus ours: the text, recomputed from the tables
#
# `printed` is the number in the text, `from the tables` the same quantity recomputed from the other numbers.

# %%
a, b, c, d, e = (row for _, row in table_5.set_index("variant").iterrows())
computed = {
    "scse_accuracy_gain": c["accuracy"] / b["accuracy"] - 1,
    "scse_f1_gain": c["f1"] / b["f1"] - 1,
    "dmh_calinski_harabasz_gain": d["calinski_harabasz"] / c["calinski_harabasz"] - 1,
    "dmh_davies_bouldin_drop": 1 - d["davies_bouldin"] / c["davies_bouldin"],
    "reconstruction_error": 1 - TEXT["cumulative_variance"].value,
    "n_patients": TEXT["n_positive"].value + TEXT["n_negative"].value,
}
decimals = {"dmh_calinski_harabasz_gain": 2, "dmh_davies_bouldin_drop": 3}
text = pd.DataFrame(
    [
        {
            "sentence": TEXT[key].quote,
            "where": TEXT[key].where,
            "printed": TEXT[key].value,
            "from the tables": value,
            "agrees": rounds_to(value, TEXT[key].value, decimals.get(key, 4)),
        }
        for key, value in computed.items()
    ]
)
show(run.save_table(text, "table_audit_text"), "Numbers in the running text")

# %% [markdown]
# ## Every claim, checked
#
# First, the numbers of images and the averages: a claim holds if one number of images, and one way of averaging, produces all the rows that it covers.

# %%
sizes = {name: set.intersection(*map(set, part["sizes"])) for name, part in audited.groupby("table")}
by_method = {method: possible_sizes(part["accuracy"], 4) for method, part in table_4.groupby("method")}
by_variant = audited[audited["table"] == "Table 5"].set_index("row")["sizes"]
verdict = audited.set_index("row")["verdict"]
impossible, three = (verdict.index[verdict == name].tolist() for name in ("impossible", "only as macro of three"))
of_methods = "; ".join(f"{DISPLAY[method]}: {' or '.join(map(str, by_method[method]))}" for method in METHODS)
possible = audited[(audited["table"] != "Table 3") & (audited["verdict"] != "impossible")]
averages = set.intersection(*map(set, possible["averages"]))
final = confusion_matrices(d, "weighted", 4, [302])
matrix = ", ".join(str(final.iloc[-1][name]) for name in ("tp", "fp", "fn", "tn"))
checks = {
    "tenth": (
        f"a row's accuracy needs a multiple of {min(sizes['Table 3'])} images",
        bool(sizes["Table 3"] & {30, 31}),
    ),
    "one test set": (f"sizes that all rows share: {sorted(sizes['Table 3'])}", bool(sizes["Table 3"])),
    "same images, methods": (of_methods, bool(set.intersection(*map(set, by_method.values())))),
    "same images, variants": (
        f"a, d, e: {by_variant['d'][0]}; b, c: multiples of {by_variant['b'][0]}",
        bool(sizes["Table 5"]),
    ),
    "one average": (f"as macro of three classes: {len(three)} rows; 5a as positive class only", bool(averages)),
    "one clustering": (f"no confusion matrix gives {' and '.join(impossible)}", not impossible),
    "302 images": (f"{len(final)} confusion matrices, tp, fp, fn, tn = {matrix} and its mirror", len(final) > 0),
}

# %% [markdown]
# Next, what the abstract and the text say about the tables: a claim holds if the printed numbers that it covers agree with it.

# %%
best = table_4.loc[table_4["accuracy"].idxmax()]
encoders = published.table_1().sort_values("iou").drop_duplicates("lesion", keep="last").set_index("lesion")["encoder"]
table_2 = published.table_2().set_index("lesion")["encoder"]
steps = table_5["accuracy"].tolist()[:4]
checks |= {
    "edema": ("IoU is at most the accuracy", (pixels["verdict"] == "consistent").all()),
    "maximum": (
        f"{DISPLAY[best['method']]} + {DISPLAY[best['backbone']]} has {best['accuracy']:.4f}",
        best["method"] == "dmh",
    ),
    "each component": (f"accuracy from a to d: {', '.join(f'{x:.4f}' for x in steps)}", steps == sorted(steps)),
    "Davies-Bouldin": (
        f"{a['davies_bouldin']} without, {b['davies_bouldin']} with; lower is better",
        b["davies_bouldin"] < a["davies_bouldin"],
    ),
    "running text": (f"{text['agrees'].sum()} of {len(text)} agree", text["agrees"].all()),
    "best encoder": (
        ", ".join(f"{lesion.replace('_', ' ')}: {DISPLAY[name]}" for lesion, name in encoders.items()),
        (table_2[encoders.index] == encoders).all(),
    ),
}

# %% [markdown]
# ## Every claim with its verdict
#
# `impossible`: no set of up to 400 images, half in each class, can produce these numbers. `contradicted`: another printed number says otherwise.

# %%
judged = run.save_table(judge(checks), "table_audit")
n_broken = judged["verdict"].isin(["impossible", "contradicted"]).sum()
run.answer(f"{n_broken} of {len(judged)} claims are impossible or contradicted by another printed number.")
show(judged, "What arithmetic says about the printed claims")

# %% [markdown]
# **Reading.** Each row of Table 3, the DMH + GoogLeNet result, and the percentages in the text are consistent in themselves. The comparisons are what does not hold up: the rows compared were scored on different numbers of images and averaged in three ways. So the printed tables cannot show that DMH is better or worse than k-medoids. Notebooks [04](04_clustering.ipynb) and [05](05_ablation.ipynb) compare the two on the same images.
#
# **Limits.** We tried neither more than 400 images nor classes of unequal size. Consistent means possible, not true. In the text of the paper that we have, the method of three rows of Table 4 is unclear. We gave ResNet18 (0.8113) to DMH because it fits 302 images, so this row is no independent evidence; GoogLeNet (0.8411) is DMH's by Section 3.3, and VGG16 (0.8133) went to k-medoids because k-means already has a row of VGG16.
#
# `ruranet_utils.evidence.audit` works on any table: `audit_classification(pd.DataFrame({"accuracy": [0.84], "recall": [0.79]}))`.

# %% [markdown]
# ## Checks

# %%
assert impossible == ["DMH + VGG16", "DMH + ResNet34"] and len(three) == 4
assert by_variant["a"] == by_variant["d"] == by_variant["e"] == [302] and by_variant["b"] == by_variant["c"]
assert set(final[["tp", "fp", "fn", "tn"]].itertuples(index=False, name=None)) == {(110, 7, 41, 144), (144, 41, 7, 110)}
assert np.all(text["agrees"]) and len(pixels) == 24

# %% [markdown]
# Next: [08 · Diagnosis or camera?](08_source_confound.ipynb)
