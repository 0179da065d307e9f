"""Where the file of a video is."""

from evads_jax.data.makers import locate


def test_a_folder_of_videos_may_link_to_another_disk(tmp_path):
    for disk in ("one", "two"):
        (tmp_path / disk).mkdir()
        (tmp_path / disk / "1.mp4").write_text(disk)
    root = tmp_path / "videos"
    root.mkdir()
    (root / "1.mp4").write_text("another")
    for disk in ("one", "two"):
        (root / disk).symlink_to(tmp_path / disk)
        assert locate(root, f"{disk}/1.mp4").read_text() == disk
    assert locate(root, "../one/1.mp4").read_text() == "another"  # by the last part of its name
