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
# # 03 · How good is a supervised diagnosis? Table 3
#
# **Question.** How well do backbones fine-tuned on labeled images tell DME from no DME? An unsupervised method should be measured against them.
#
# | | |
# | --- | --- |
# | Paper | Section 3.3, Table 3 |
# | Reads | the diagnosis cohort of notebook 01 |
# | Writes | `table_3`, `table_3_natural`, `table_3_splits`, `table_3_draws` (csv, md); `fig_roc`, `fig_draws`, `fig_calibration`, `fig_confusion` |
# | Needs | synthetic: 1 min, 3.9 GB · open: 25 min, 5.0 GB; on two CPU cores, `run.json` |
#
# The paper has six backbones; where the profile asks for ImageNet weights, we train those that have them, since so few photographs do not train a network from scratch. The last layer of each backbone is replaced with a single logit, and all layers are trained with Adam on binary cross-entropy that weights both classes equally. The threshold-free score is the area under the ROC curve, the probability that a photograph with DME gets a higher score $s$ than one without:
#
# $$\mathrm{AUC} = P(s^{+} > s^{-}) + \tfrac{1}{2} P(s^{+} = s^{-})$$
#
# An AUC of 0.5 is chance. We keep the epoch with the best validation AUC and score the test images once. No patient is in more than one split. There are two protocols:
#
# - **hold-out**, the paper's protocol: one test set. The paper's six rows are possible only with a multiple of 62 images, if half of them are positive ([07](07_paper_audit.ipynb) shows why); our test set has about 31 images of each class if the cohort is large enough, otherwise a fifth of the cohort.
# - **cross-validation** over folds of patients (three in `synthetic`, otherwise five). Every image is scored once, by a model that has never seen its patient; one of the other folds selects the epoch. There are more test images, so the intervals are narrower; they apply to these models, not to models trained on other patients.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import pandas as pd
from ruranet_utils import published
from ruranet_utils.data.cohort import all_labeled
from ruranet_utils.evidence.grim import confusion_matrices
from ruranet_utils.features.extract import image_features
from ruranet_utils.networks.weights import find_weights, pretrained, reference_backbone
from ruranet_utils.profiles import DISPLAY
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.tables import paper_versus_ours, show
from ruranet_utils.running.start import start
from ruranet_utils.supervised.study import PROTOCOLS, calibration_bins, deal, hold_out_draws, predict, table_3
from sklearn.metrics import confusion_matrix, roc_curve

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Train and score
#
# Each training run is a separate step in the store: if a run is killed, it resumes from the last epoch of the training it was in. The longest, those of the last table, start first, so that no worker waits for them at the end.

# %%
_, diagnosis = run.cohorts
dealt = deal(diagnosis, run.profile)
splits = pd.concat(
    part.table.assign(protocol=protocol, fold=fold)
    for protocol, parts in dealt.items()
    for fold, part in enumerate(parts)
)
sizes = splits.groupby(["protocol", "fold", "split"], sort=False).agg(
    n=("label", "size"), positive=("label", "sum"), patients=("patient_id", "nunique")
)
run.save_table(sizes.reset_index(), "table_3_splits")
show(sizes.reset_index().query("fold == 0"), "Images and patients in the hold-out and in the first fold")

# %%
natural = all_labeled(run.profile, run.store)
reference = reference_backbone(run.profile)
classifiers = pretrained(run.profile.classifiers, run.profile)
classifier = reference if reference in classifiers else classifiers[0]
folds = enumerate(deal(natural, run.profile)["cross-validation"])
trainings = {(classifier, "all labeled", fold): part for fold, part in folds}
trainings |= {
    (backbone, protocol, fold): part
    for protocol, parts in dealt.items()
    for fold, part in enumerate(parts)
    for backbone in classifiers
}
predictions = predict(trainings, run.profile, run.store)
balanced = predictions["protocol"] != "all labeled"
predictions, on_natural = predictions[balanced], predictions[~balanced]
scores = table_3(predictions, run.profile)
best = scores[scores["protocol"] == "cross-validation"].nlargest(1, "auc").iloc[0]
run.answer(
    f"In cross-validation, {DISPLAY[best['backbone']]} ranks first, with an accuracy of {best['accuracy']:.2f} "
    f"[{best['accuracy_low']:.2f}, {best['accuracy_high']:.2f}] and an AUC of {best['auc']:.2f} (N = {best['n']})."
)

# %% [markdown]
# ## Table 3 · Paper versus ours
#
# Precision, recall, and F1 are for the positive class, as in the paper, at a threshold of 0.5. `balanced accuracy` is the mean recall of the two classes; the cohort is balanced, the test sets nearly so. `brier` is the mean squared error of the probability: answering 0.5 for every image scores 0.25. `epoch` and `validation auc` describe the epochs that were kept (means over the folds): if the validation AUC is far above the test AUC, it is inflated by choosing the epoch on few images. The paper's numbers come from one hold-out and are shown next to both of our protocols.

# %%
columns = [*published.CLASSIFICATION, "auc"]
LEAD = ["backbone", "protocol", "auc paper", "auc ours", "auc_low", "auc_high", "accuracy paper", "accuracy ours"]
paper = published.table_3().merge(pd.DataFrame({"protocol": PROTOCOLS}), how="cross")
table = paper_versus_ours(scores, paper, ["backbone", "protocol"], columns)
show(run.save_table(table, "table_3"), "Table 3 · paper versus ours", {"auc ours": "max"}, "protocol", LEAD)

# %% [markdown]
# ## Figure · ROC curves and accuracies
#
# Top: sensitivity against 1 - specificity; the dashed line is chance. Images are ranked within their fold, because models from different folds score on different scales. Bottom: accuracy with its 95 % interval, next to the paper's. The interval is over patients and not adjusted for the number of rows: the best of several owes part of its lead to luck.

# %% alt="Top, ROC curves of the backbones on the hold-out and in cross-validation, with the chance diagonal; bottom, their accuracies with intervals and the paper's as crosses."
curves = {protocol: {} for protocol in PROTOCOLS}
for (protocol, backbone), part in predictions.groupby(["protocol", "backbone"], sort=False):
    ranks = part.groupby("fold")["probability"].rank(pct=True)
    curves[protocol][backbone] = roc_curve(part["label"], ranks)[:2]
printed = published.table_3().set_index("backbone")["accuracy"]
run.save_figure(plots.receiver_curves(curves, scores, printed), "fig_roc")

# %% [markdown]
# ## Figure · What would another hold-out have shown?
#
# One hold-out is one random draw. A logistic regression on whole-image features is fast enough to fit for twenty of them: the spread of the dots is what a single number from so few images hides. Hold-outs of new patients would vary more, since these draws share images. The cross is the same logistic regression on the hold-out that the table above uses.

# %% alt="Two rows of dots, accuracy and area under the ROC curve of twenty hold-outs; a cross marks the hold-out that the table uses, a dashed line marks chance."
whole = image_features(diagnosis.images, reference, run.profile, run.store)
draws = hold_out_draws(whole, diagnosis, run.profile).assign(backbone=reference)
draws["weights"] = find_weights(reference, run.profile).origin
run.save_table(draws, "table_3_draws")
run.save_figure(plots.spread_of_draws(draws, run.profile.seed), "fig_draws")

# %% [markdown]
# ## Figure · Are the probabilities right?
#
# Cross-validation images are sorted by predicted probability into up to five groups of about equal size (equal probabilities stay together). Each point is the share with DME in a group, with a 95 % interval (bootstrap over patients), against the mean predicted probability. A calibrated model lies on the dashed line.

# %% alt="One panel for each backbone: the share of images with DME against the predicted probability, with intervals, and the diagonal of a calibrated model."
crossed = predictions[predictions["protocol"] == "cross-validation"]
run.save_figure(plots.calibration(calibration_bins(crossed, run.profile)), "fig_calibration")

# %% [markdown]
# ## Figure · Confusion matrices
#
# Top: the only matrices on 31 + 31 images that produce the paper's rows (computed by `ruranet_utils.evidence.grim`, not printed in the paper). Below: ours. The shading shows the share of each true class.

# %% alt="Confusion matrices as a grid: one column for each backbone, one row each for the paper, our hold-out and our cross-validation; darker is a larger share of the true class."
matrices = {source: {} for source in ("paper", *PROTOCOLS)}
for row in published.table_3().to_dict("records"):
    found = confusion_matrices(row, "positive", 4, [62]).iloc[0]
    matrices["paper"][row["backbone"]] = found[["tn", "fp", "fn", "tp"]].to_numpy().reshape(2, 2)
matrices["paper"] = {backbone: matrices["paper"][backbone] for backbone in classifiers}
for (protocol, backbone), part in predictions.groupby(["protocol", "backbone"], sort=False):
    matrices[protocol][backbone] = confusion_matrix(part["label"], part["probability"] > 0.5)
run.save_figure(plots.confusions(matrices), "fig_confusion")

# %% [markdown]
# ## All labeled photographs
#
# Cross-validation on all labeled photographs instead of equal numbers per class, with the backbone that [04](04_clustering.ipynb) also uses. The loss weights both classes equally. Accuracy depends on the class balance, so read the balanced accuracy and the AUC. In the synthetic profile the classes are balanced anyway.

# %%
scored = table_3(on_natural, run.profile).assign(protocol="cross-validation")
scored["share with DME"] = natural.labels.mean()
show(run.save_table(scored, "table_3_natural"), f"{natural.labels.sum()} of {len(natural)} photographs with DME")

# %% [markdown]
# **Limits, and what differs from the paper.** The images are different, and so is their number; the table states the `weights`. The paper does not say how it trained these networks. Rows of the paper without ours are of backbones whose ImageNet weights were not at hand; with `random` weights (`synthetic`), the rows test the code, not the backbone.

# %% [markdown]
# ## Checks

# %%
assert list(scores["backbone"].drop_duplicates()) == classifiers
n_images = scores.set_index(["protocol", "backbone"])["n"]
assert n_images["cross-validation"].eq(len(diagnosis)).all(), "every image is scored once"
sides = splits.groupby(["protocol", "fold", "patient_id"])["split"].nunique()
assert sides.eq(1).all(), "no patient is in two splits"
assert scores["accuracy"].between(0, 1).all() and scores["auc"].between(0, 1).all()
printed = published.table_3().to_dict("records")
assert all(len(confusion_matrices(row, "positive", 4, [62])) == 1 for row in printed)

# %% [markdown]
# Next: [04 · Does clustering find DME?](04_clustering.ipynb)
