"""Figures of merit of predictions, with intervals over patients and paired tests."""

from collections.abc import Sequence

import numpy as np

from shared.evaluation.bootstrap import bootstrap_interval


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(..., classes) -> probabilities."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AUROC, accuracy, balanced accuracy, macro F1 and calibration error of probabilities (N, classes).

    The class is the most probable one; no threshold is chosen. With several classes AUROC is the mean of one against
    the rest. AUROC is NaN where a class has no bag. The calibration error is the expected one in 10 bins of the top
    probability.
    """
    import torch
    from sklearn.metrics import balanced_accuracy_score, f1_score
    from torchmetrics.functional.classification import multiclass_calibration_error

    found = probabilities.argmax(1)
    classes = probabilities.shape[1]
    error = multiclass_calibration_error(
        torch.from_numpy(probabilities).float(), torch.from_numpy(labels), num_classes=classes, n_bins=10
    )
    return {
        "auroc": auroc(probabilities[None], labels),
        "accuracy": float((found == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, found)) if len(set(labels)) > 1 else float("nan"),
        "macro_f1": float(f1_score(labels, found, average="macro", labels=range(classes), zero_division=0)),
        "calibration_error": float(error),
        "nll": float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean()),
    }


def auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean area under the ROC curve of several runs over the same bags: (R, N, classes)."""
    return float(weighted_auroc(pairs(probabilities, labels), labels, np.ones((1, len(labels))))[0])


def pairs(probabilities: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """For each class (of two: the second), how often a bag of it scores above one that is not, mean over runs.

    The AUROC of bags with the weights w is w_in . P w_out / (sum w_in sum w_out): the bootstrap needs P only once.
    """
    classes = probabilities.shape[2]
    found = []
    for one in range(classes) if classes > 2 else (1,):
        inside = labels == one
        total = 0.0
        for run in probabilities[:, :, one]:
            difference = run[inside][:, None] - run[~inside][None]
            total = total + (difference > 0) + 0.5 * (difference == 0)
        found.append(np.asarray(total) / len(probabilities))
    return found


def weighted_auroc(found: list[np.ndarray], labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under weights of the bags: (S, N) -> (S,); NaN where a class has no weight."""
    areas = []
    for one, matrix in zip(range(len(found)) if len(found) > 1 else (1,), found, strict=True):
        inside = labels == one
        top = np.einsum("sp,pn,sn->s", weights[:, inside], matrix, weights[:, ~inside], optimize=True)
        bottom = weights[:, inside].sum(1) * weights[:, ~inside].sum(1)
        areas.append(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0))
    return np.mean(areas, axis=0)


def draws(patients: Sequence[str], samples: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each bag counts when patients are drawn with replacement: (samples, N)."""
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(len(names), size=(samples, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return counts[:, index].astype(np.float64)


def interval(values: np.ndarray) -> list[float]:
    """The central 95 % of bootstrap values; those that are not a number (a class was not drawn) are left out."""
    values = values[np.isfinite(values)]
    return [float("nan")] * 2 if not len(values) else [float(v) for v in np.quantile(values, [0.025, 0.975])]


def patient_interval(values: np.ndarray, patients: Sequence[str]) -> list[float]:
    """95 % interval of the mean over bags, patients drawn whole."""
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    sizes = np.bincount(index, minlength=len(names))
    means = np.bincount(index, weights=values, minlength=len(names)) / sizes
    return list(bootstrap_interval(means, sizes))


def sign_flip(differences: np.ndarray, patients: Sequence[str], samples: int = 10_000, seed: int = 0) -> float:
    """The chance of a mean difference at least this large if the two models were exchangeable, patient by patient.

    What was found counts as one of the flips, so that it is never 0.
    Reference: Phipson and Smyth 2010, Permutation P-values Should Never Be Zero.
    """
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    sums = np.bincount(index, weights=differences)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12)) / (1 + samples))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T between 0.05 and 20 with the least negative log-likelihood of softmax(logits / T); 1 if all are right.

    Then there is no such T: the smaller the better, and a handful of bags would make every prediction a certainty.
    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    if (logits.argmax(1) == labels).all():
        return 1.0

    def nll(log_t: float) -> float:
        p = softmax(logits, np.exp(log_t))[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    return float(np.exp(minimize_scalar(nll, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def attention_measures(weights: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    """How attention (M, N) lies on a bag.

    top10_mass: weight of the ten strongest instances, mean over branches; overlap: mean cosine of pairs of branches.
    Where the truth (N,) is known and has both kinds: instance_auroc of the mean map, and coverage, the share of the
    true instances among as many strongest ones.
    """
    import torch

    from shared.attention.branch import branch_overlap

    top = np.sort(weights, axis=1)[:, ::-1][:, :10].sum(1)
    found = {
        "top10_mass": float(top.mean()),
        "overlap": float(branch_overlap(torch.from_numpy(weights)[None])),
    }
    if truth is not None and truth.any() and not truth.all():
        mean = weights.mean(0)
        strongest = np.argsort(-mean, kind="stable")[: truth.sum()]
        scores = np.stack([1 - mean, mean], 1)[None]
        found |= {"instance_auroc": auroc(scores, truth.astype(int)), "coverage": float(truth[strongest].mean())}
    return found
