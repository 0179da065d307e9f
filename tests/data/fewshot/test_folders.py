"""The layouts of image sets on the disk."""

import pytest

from evads_jax.data.fewshot import folders
from evads_jax.data.fewshot.prepare import plan
from evads_jax.errors import UserError

from .images import class_folders, settings, write_image


def opened(name, **folder):
    return plan(settings(**{key: str(value) for key, value in folder.items()}), name).open()


def test_mini_imagenet_is_read_from_a_folder_for_each_class(tmp_path):
    for own, classes in (("train", ("n1", "n2")), ("val", ("n3",)), ("test", ("n4", "n5"))):
        class_folders(tmp_path / own, classes)
    assert opened("mini_imagenet/train", mini_imagenet=tmp_path).classes == ("n1", "n2")
    assert opened("mini_imagenet/validation", mini_imagenet=tmp_path).classes == ("n3",)
    novel = opened("mini_imagenet/novel", mini_imagenet=tmp_path)
    assert (novel.classes, novel.labels) == (("n4", "n5"), (0, 0, 0, 1, 1, 1))


@pytest.mark.parametrize("flat", [True, False])
def test_mini_imagenet_is_read_from_its_csv_files(tmp_path, flat):
    rows = [("n2", "n20.jpg"), ("n1", "n10.jpg"), ("n2", "n21.jpg")]
    for label, file in rows:
        write_image(tmp_path / "images" / ("" if flat else label) / file)
    (tmp_path / "train.csv").write_text("filename,label\n" + "".join(f"{f},{c}\n" for c, f in rows))
    images = opened("mini_imagenet/train", mini_imagenet=tmp_path)
    assert (images.classes, images.labels) == (("n1", "n2"), (0, 1, 1))
    assert images.make(0, 8).shape == (8, 8, 3)
    with pytest.raises(UserError, match=r"neither val/ nor val\.csv"):
        opened("mini_imagenet/validation", mini_imagenet=tmp_path)


def test_isic_takes_the_class_of_the_one_column_that_is_marked(tmp_path):
    for name in ("ISIC_1", "ISIC_2", "ISIC_3"):
        write_image(tmp_path / "ISIC2018_Task3_Training_Input" / f"{name}.jpg")
    table = tmp_path / "GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    table.parent.mkdir()
    table.write_text("image,MEL,NV\nISIC_1,0.0,1.0\nISIC_2,1.0,0.0\nISIC_3,0.0,1.0\n")
    images = opened("isic", isic=tmp_path)
    assert (images.classes, images.labels) == (("MEL", "NV"), (0, 1, 1))
    for part in ("Test", "Validation"):  # their images are elsewhere
        table.with_name(f"ISIC2018_Task3_{part}_GroundTruth.csv").write_text("image,MEL,NV\nISIC_7,1.0,0.0\n")
    assert opened("isic", isic=tmp_path).labels == images.labels
    table.write_text("image,MEL,NV\nISIC_1,1.0,1.0\n")
    with pytest.raises(UserError, match="ISIC_1 has 2 classes"):
        opened("isic", isic=tmp_path)
    table.write_text("image,MEL,NV\nISIC_9,1.0,0.0\n")
    with pytest.raises(UserError, match=r"no such image: .*ISIC_9"):
        opened("isic", isic=tmp_path)


def test_chestx_takes_images_of_exactly_one_of_seven_findings(tmp_path):
    rows = {"1.png": "Mass", "2.png": "Mass|Nodule", "3.png": "No Finding", "4.png": "Atelectasis", "5.png": "Hernia"}
    for file in rows:
        write_image(tmp_path / "images_001" / "images" / file)
    lines = "".join(f"{file},{finding},5\n" for file, finding in rows.items())
    (tmp_path / "Data_Entry_2017.csv").write_text("Image Index,Finding Labels,Age\n" + lines)
    images = opened("chestx", chestx=tmp_path)
    assert (images.classes, images.labels) == (("Atelectasis", "Mass"), (0, 1))
    assert len(folders.CHESTX) == 7


def test_what_is_wrong_with_a_folder_is_told_with_its_name(tmp_path):
    (tmp_path / "set" / "empty").mkdir(parents=True)
    with pytest.raises(UserError, match="class 'empty' has no images"):
        plan(settings(), f"folder:{tmp_path / 'set'}")
    with pytest.raises(UserError, match="no class folders"):
        plan(settings(), f"folder:{tmp_path / 'set' / 'empty'}")
    with pytest.raises(UserError, match=r"no \*Training_GroundTruth\*\.csv"):
        opened("isic", isic=tmp_path)
    (tmp_path / "Data_Entry_2017.csv").write_text("Image,Finding\n")
    with pytest.raises(UserError, match="no column Image Index, Finding Labels"):
        opened("chestx", chestx=tmp_path)


def test_a_table_that_was_cut_short_is_told_with_its_line(tmp_path):
    write_image(tmp_path / "images" / "1.jpg")
    (tmp_path / "train.csv").write_text("filename,label\n1.jpg,a\n2.j")
    with pytest.raises(UserError, match=r"a line without label .*train\.csv:3"):
        opened("mini_imagenet/train", mini_imagenet=tmp_path)


def test_classes_are_in_the_order_of_their_names_and_images_in_theirs(tmp_path):
    root = class_folders(tmp_path, ("zebra", "ant"), each=2)
    images = plan(settings(), f"folder:{root}").open()
    assert images.classes == ("ant", "zebra")
    assert images.make(1, 4)[0, 0].tolist() == [60, 20, 100]
