"""Image sets on the disk: a folder for each class, and the layouts of miniImageNet, ISIC 2018 and ChestX-ray8.

miniImageNet, either
    DIR/{train,val,test}/<class>/*.jpg
    DIR/{train,val,test}.csv with the columns filename, label, and the files in DIR/images, flat or in class folders
ISIC 2018, task 3: below DIR, a csv of the columns image, MEL, NV, … (one of them 1) and the files <image>.jpg; those
    of the validation and test images may lie there too, and are not read
ChestX-ray8: below DIR, Data_Entry_2017*.csv and the files that its «Image Index» names

Which ChestX images count is not in the paper; here as in the benchmark that it uses (Guo et al. 2020, BSCD-FSL): those
of exactly one finding, of seven findings.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from evads_jax.data.fewshot.reading import Plan, plan_of_files
from evads_jax.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
CHESTX = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
MINI_PARTS = {"train": "train", "validation": "val", "novel": "test"}


def class_folders(name: str, root: Path) -> Plan:
    """A folder with a folder of images for each class.

    Raises:
      UserError: there is no such folder, or it holds no class.
    """
    if not root.is_dir():
        raise UserError("no such folder of images", str(root), "give a folder with a folder for each class")
    found = {p.name: _images(p) for p in sorted(root.iterdir()) if p.is_dir()}
    if empty := [name for name, files in found.items() if not files]:
        raise UserError(f"class {empty[0]!r} has no images ({', '.join(ENDINGS)})", str(root), "remove or fill it")
    if not found:
        raise UserError("no class folders", str(root), "give a folder with a folder for each class")
    return plan_of_files(name, found)


def mini_imagenet(name: str, root: Path, part: str) -> Plan:
    """A part of miniImageNet: `train` (64 classes), `validation` (16) or `novel` (20).

    Raises:
      UserError: the folder has neither layout, or a csv names a file that is not there.
    """
    own = MINI_PARTS[part]
    if (root / own).is_dir():
        return class_folders(name, root / own)
    table = root / f"{own}.csv"
    if not table.is_file():
        raise UserError(f"neither {own}/ nor {own}.csv", str(root), "give the folder of miniImageNet")
    by_class: dict[str, list[Path]] = {}
    for row in _rows(table, ("filename", "label")):
        flat = root / "images" / row["filename"]
        path = flat if flat.is_file() else root / "images" / row["label"] / row["filename"]
        by_class.setdefault(row["label"], []).append(_there(path, table))
    return plan_of_files(name, dict(sorted(by_class.items())))


def isic(name: str, root: Path) -> Plan:
    """The training images of ISIC 2018's lesion diagnosis (seven classes).

    Raises:
      UserError: no ground truth, a row without exactly one class, or a file that is not there.
    """
    table = _find(root, "*Training_GroundTruth*.csv", "the ground truth of ISIC 2018's training images, task 3")
    files = {path.stem: path for path in _images(root)}
    by_class: dict[str, list[Path]] = {}
    for row in _rows(table, ("image",)):
        image = row.pop("image")
        chosen = [c for c, value in row.items() if value in ("1", "1.0")]
        if len(chosen) != 1:
            raise UserError(f"{image} has {len(chosen)} classes", str(table), "each row marks one column with 1")
        by_class.setdefault(chosen[0], []).append(_there(files.get(image, root / f"{image}.jpg"), table))
    return plan_of_files(name, dict(sorted(by_class.items())))


def chestx(name: str, root: Path) -> Plan:
    """The images of ChestX-ray8 with exactly one of seven findings.

    Raises:
      UserError: no table, or a file that is not there.
    """
    table = _find(root, "Data_Entry*.csv", "Data_Entry_2017.csv of ChestX-ray8")
    files = {path.name: path for path in _images(root)}
    by_class: dict[str, list[Path]] = {finding: [] for finding in CHESTX}
    for row in _rows(table, ("Image Index", "Finding Labels")):
        if row["Finding Labels"] in by_class:
            index = row["Image Index"]
            by_class[row["Finding Labels"]].append(_there(files.get(index, root / index), table))
    return plan_of_files(name, {finding: paths for finding, paths in by_class.items() if paths})


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def _find(root: Path, pattern: str, what: str) -> Path:
    if found := sorted(root.rglob(pattern)) if root.is_dir() else []:
        return found[0]
    raise UserError(f"no {pattern}", str(root), f"give a folder that holds {what}")


def _there(path: Path, table: Path) -> Path:
    if not path.is_file():
        raise UserError(f"no such image: {path}", str(table), "the table names it; are all archives unpacked?")
    return path


def _rows(table: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check(reader.fieldnames, needed, table)
        for row in reader:
            if short := [name for name in needed if row[name] is None]:
                raise UserError(
                    f"a line without {', '.join(short)}", f"{table}:{reader.line_num}", "is the file whole?"
                )
            yield row


def _check(columns: object, needed: tuple[str, ...], table: Path) -> None:
    names: Mapping[str, None] = dict.fromkeys(columns or ())  # type: ignore[call-overload]
    if missing := [name for name in needed if name not in names]:
        raise UserError(f"no column {', '.join(missing)}", str(table), "the first line names the columns")
