"""DICOM series in, DICOM-SEG out. pydicom reads; highdicom, which is optional, writes.

House notation: X, Y, Z the axes of the volume that is made: columns, rows and slices of the series.
"""

from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.volumes import Volume
from shared.errors import InputError
from shared.io.files import replacing

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def dicom_files(folder: Path) -> list[Path]:
    """The files of a folder that begin as DICOM files do; not those of folders below."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with open(path, "rb") as file:
                if file.read(132)[128:] == b"DICM":
                    found.append(path)
    return found


def read_headers(folder: Path) -> list[Any]:
    """The data sets of the one series in a folder, in their order along the normal of the slices.

    Raises InputError for a folder without DICOM images or with several series, and for slices that make no volume:
    other sizes or orientations, two at one place, or a gap.
    """
    import pydicom

    read: list[Any] = []
    for path in dicom_files(folder):
        try:
            one = pydicom.dcmread(path)
        except Exception as error:  # pydicom raises whatever a damaged element leads to
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise InputError(f"{path}: is damaged ({reason}); copy it again") from None
        if "PixelData" in one and "ImagePositionPatient" in one:
            read.append(one)
    if not read:
        raise InputError(f"{folder}: holds no DICOM slice with a position; name the folder of one series")
    series = sorted({str(one.get("SeriesInstanceUID", "")) for one in read})
    if len(series) > 1:
        raise InputError(f"{folder}: holds {len(series)} series; put each into a folder of its own")
    first = read[0]
    for one in read:
        if (one.Rows, one.Columns) != (first.Rows, first.Columns):
            raise InputError(f"{one.filename}: is {one.Rows} x {one.Columns}, other slices not; leave scouts out")
        if not np.allclose(one.ImageOrientationPatient, first.ImageOrientationPatient, atol=1e-3):
            raise InputError(f"{one.filename}: is oriented unlike the other slices; leave scouts out")
        if int(one.get("SamplesPerPixel", 1)) != 1:
            raise InputError(f"{one.filename}: holds colours; give one number a voxel")
    normal = _normal(first)
    read.sort(key=lambda one: float(np.dot(normal, one.ImagePositionPatient)))
    places = np.array([float(np.dot(normal, one.ImagePositionPatient)) for one in read])
    steps = np.diff(places)
    if len(steps) and steps.min() < 1e-3:
        at = int(steps.argmin())
        raise InputError(f"{read[at + 1].filename}: lies where {Path(read[at].filename).name} does; leave one out")
    if len(steps) and steps.max() > 1.5 * np.median(steps):
        at = int(steps.argmax())
        raise InputError(
            f"{read[at + 1].filename}: lies {steps[at]:.3g} mm after the slice before; add what is missing"
        )
    return read


def _normal(one: Any) -> np.ndarray:
    rows, columns = np.array(one.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.cross(rows, columns)


def read_series(folder: Path) -> Volume:
    """A folder of one series as a volume in its own units (Hounsfield: CT). Raises InputError as `read_headers`."""
    read = read_headers(folder)
    slices = []
    for one in read:
        try:
            pixels = one.pixel_array.astype(np.float32)
        except Exception as error:
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise InputError(f"{one.filename}: its pixels cannot be read ({reason}); convert it first") from None
        slices.append(pixels * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0)))
    voxels = np.stack(slices, -1).transpose(1, 0, 2)  # (rows, columns, slices) -> columns, rows, slices
    first, last = read[0], read[-1]
    across, down = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    origin = np.array(first.ImagePositionPatient, dtype=float)
    step = (np.array(last.ImagePositionPatient, dtype=float) - origin) / max(1, len(read) - 1)
    if len(read) == 1:
        step = _normal(first) * float(first.get("SliceThickness") or 1)
    affine = np.eye(4)
    affine[:3, 0] = across * float(first.PixelSpacing[1])
    affine[:3, 1] = down * float(first.PixelSpacing[0])
    affine[:3, 2], affine[:3, 3] = step, origin
    return Volume(folder, np.ascontiguousarray(voxels), LPS_TO_RAS @ affine)


def write_dicom_seg(path: Path, folder: Path, labels: np.ndarray, names: list[str], model: str) -> None:
    """The label map (X, Y, Z) of a series as a DICOM segmentation object that refers to its slices.

    UIDs that the series leaves blank are made up for the object, which highdicom else refuses. Raises InputError where
    highdicom is not installed, and where nothing was found, since an empty object is not allowed.
    """
    try:
        import highdicom
    except ImportError:
        raise InputError("--dicom-seg: needs highdicom; install it by `uv sync --extra dicom-seg`") from None
    from highdicom.sr.coding import CodedConcept

    if not labels.any():
        raise InputError(
            f"{folder}: nothing was found in it, and an empty DICOM-SEG is not allowed; leave out --dicom-seg"
        )
    source = read_headers(folder)
    from pydicom.uid import generate_uid

    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        common = generate_uid()
        for one in source:
            if not str(one.get(keyword, "") or ""):
                setattr(one, keyword, generate_uid() if keyword == "SOPInstanceUID" else common)
    for one in source:
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"):
            if keyword not in one:
                setattr(one, keyword, "")
        for keyword in ("AccessionNumber", "StudyTime", "ReferringPhysicianName"):
            if keyword not in one:
                setattr(one, keyword, "")
    present = [number for number in range(1, len(names) + 1) if (labels == number).any()]
    organ = CodedConcept("123037004", "SCT", "Anatomical Structure")
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=names[label - 1],
            segmented_property_category=organ,
            segmented_property_type=CodedConcept(f"label-{label}", "99MANYHEADS", names[label - 1][:64]),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name="manyheads medical",
                version=model[:64],
                family=CodedConcept("123109", "DCM", "Artificial Intelligence"),
            ),
        )
        for number, label in enumerate(present, 1)
    ]
    frames = labels.transpose(2, 1, 0)  # slices, rows, columns
    masks = np.stack([frames == label for label in present], -1).astype(np.uint8)
    segmentation = highdicom.seg.Segmentation(
        source_images=source,
        pixel_array=masks,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Manyheads",
        manufacturer_model_name="manyheads medical",
        software_versions="1",
        device_serial_number="0",
    )
    with replacing(path) as partial:
        segmentation.save_as(partial)
