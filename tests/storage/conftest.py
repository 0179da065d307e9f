import pytest

from tests.storage.fake_gcs import fake_bucket


@pytest.fixture(scope="session")
def server():
    """One server a session: the clients remember where theirs is, and read the environment when they are imported."""
    with fake_bucket() as made:
        pytest.importorskip("gcsfs", reason="the extra gcs is not installed")
        yield made


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """An empty bucket, and a machine that has seen nothing of it yet."""
    server.clear()
    monkeypatch.setenv("EVADS_LOCAL", str(tmp_path / "machine"))
    yield server
    server.clear()  # a server that a test has let die is no good for what a module's fixtures do before the next test


@pytest.fixture
def other_machine(tmp_path, monkeypatch):
    """Goes on on a machine that has seen nothing of the bucket."""

    def move():
        monkeypatch.setenv("EVADS_LOCAL", str(tmp_path / "other"))

    return move
