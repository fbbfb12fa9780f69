"""One walk of a folder for prepare, predict and the catalogue: what it takes and tells."""

import os
import socket
import stat
import warnings
from pathlib import Path

import pytest
from serzoo.datamodules.catalog import _listing, open_corpora, prepare_corpus
from serzoo.datamodules.corruption import recordings as noises
from serzoo.datamodules.placeholders import problem
from serzoo.datamodules.prepare import prepare
from serzoo.datamodules.walk import KINDS, walk
from serzoo.zoo.core.errors import DataNote, DataWarning
from serzoo.zoo.run.recordings import recordings

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def by_prepare(root):
    """Paths below the root that are taken, and what is told."""
    done = prepare("folder", root=root)
    return sorted(u.audio for u in done.utterances), [w.message for w in done.warnings]


def by_predict(root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = [Path(r.name).relative_to(root).as_posix() for r in recordings(root)]
    return names, [str(w.message) for w in caught]


def by_noise(root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [path.relative_to(root).as_posix() for _, path in noises("noise", {"noise": root})]
    return found, [str(w.message) for w in caught]


USERS = [by_prepare, by_predict, by_noise]


@pytest.fixture
def tree(tmp_path, write_wave):
    """Two classes of two files each."""
    for name in ("angry/a.wav", "angry/b.flac", "sad/a.wav", "sad/deep/b.ogg"):
        write_wave(tmp_path / "root" / name, hz=150 + 10 * len(name))
    return tmp_path / "root"


FOUR = ["angry/a.wav", "angry/b.flac", "sad/a.wav", "sad/deep/b.ogg"]


@pytest.mark.parametrize("user", USERS)
def test_hidden_files_and_what_macos_adds_are_passed_over(tree, write_wave, user):
    for name in ("angry/.a.wav", ".cache/x.wav", "__MACOSX/angry/a.wav", "sad/__MACOSX/b.wav"):
        write_wave(tree / name)
    (tree / "sad" / "._a.wav").write_bytes(b"\0\5\26\7")
    (tree / ".DS_Store").write_bytes(b"no audio")
    (tree / ".git" / "annex").mkdir(parents=True)
    write_wave(tree / ".git" / "annex" / "x.wav")
    names, told = user(tree)
    assert names == FOUR
    assert any("2 hidden audio files (first: .cache/x.wav, angry/.a.wav)" in t for t in told)
    assert any("3 files that macOS added" in t and "sad/._a.wav" in t for t in told)


@pytest.mark.parametrize("user", USERS)
def test_links_are_followed_and_no_folder_is_read_twice(tree, tmp_path, write_wave, user):
    write_wave(tmp_path / "elsewhere" / "c.wav", hz=300)
    (tree / "sad" / "linked").symlink_to(tmp_path / "elsewhere")
    (tree / "sad" / "up").symlink_to("..")
    (tree / "aaa").symlink_to("angry")  # before the folder itself by name, not by right
    (tree / "sad" / "file.wav").symlink_to(tmp_path / "elsewhere" / "c.wav")
    names, told = user(tree)
    assert names == sorted([*FOUR, "sad/linked/c.wav", "sad/file.wav"])
    (twice,) = [t for t in told if "did not follow" in t]
    assert "2 links" in twice
    assert "sad/up (-> ..)" in twice


@pytest.mark.parametrize("user", [by_prepare, by_noise])
@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("/nonexistent.wav", "/nonexistent.wav"),
        ("../.git/annex/objects/aa/bb/x.wav", "git annex get"),
        ("../../.dvc/cache/files/md5/ab/cd", "dvc pull"),
        ("c.wav", "-> c.wav"),  # itself
    ],
)
def test_links_to_nothing_are_counted_with_their_remedy(tree, user, target, remedy):
    (tree / "sad" / "c.wav").symlink_to(target)
    (tree / "sad" / "notes.txt").symlink_to("nowhere")  # nobody would take it
    names, told = user(tree)
    assert names == FOUR
    (text,) = [t for t in told if "left out" in t]
    assert " 1 " in text
    assert "sad/c.wav" in text
    assert remedy in text


@pytest.mark.parametrize(
    ("plant", "remedy"),
    [
        (lambda folder: (folder / "c.wav").write_text(LFS), "git lfs pull"),
        (lambda folder: (folder / "c.wav").write_text("/annex/objects/x.wav\n"), "git annex get"),
        (lambda folder: (folder / "c.wav.dvc").write_text("outs:\n- path: c.wav\n"), "dvc pull"),
    ],
    ids=["lfs", "unlocked annex", "dvc"],
)
def test_what_version_control_has_not_fetched_is_counted(tree, plant, remedy):
    plant(tree / "sad")
    names, told = by_prepare(tree)
    assert names == FOUR
    (text,) = [t for t in told if "left out" in t]
    assert "sad/c.wav" in text
    assert remedy in text
    (row,) = [r for r in recordings(tree) if r.name.endswith("c.wav")]
    with pytest.raises(ValueError, match=remedy):
        list(row.pieces())


@pytest.mark.parametrize("user", USERS)
def test_audio_that_cannot_be_read_is_counted_by_its_suffix(tree, user):
    for name in ("c.m4a", "d.M4A", "e.wma", "a.mp4"):  # a.mp4 lies beside a.wav, converted
        (tree / "sad" / name).write_bytes(b"\0\0\0\x20ftypM4A ")
    names, told = user(tree)
    assert names == FOUR
    (text,) = [t for t in told if "left out" in t]
    assert "3 audio files" in text
    assert "2 m4a, 1 wma" in text
    assert "ffmpeg" in text


@pytest.mark.parametrize("user", USERS)
def test_a_folder_that_may_not_be_read_is_named(tree, user, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "sad":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    names, told = user(tree)
    assert names == FOUR[:2]
    assert any("sad (Permission denied)" in t and "chmod" in t for t in told)


def test_a_root_that_may_not_be_read_is_an_error(tree, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ValueError, match="Permission denied"):
        prepare("folder", root=tree)
    (row,) = recordings(tree)
    with pytest.raises(ValueError, match="Permission denied"):
        list(row.pieces())


@pytest.mark.parametrize("user", USERS)
def test_pipes_and_sockets_are_named_as_what_they_are(tree, user, monkeypatch):
    os.mkfifo(tree / "sad" / "p.wav")
    monkeypatch.chdir(tree / "sad")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("s.wav")
        names, told = user(tree)
    assert names == FOUR
    (text,) = [t for t in told if "left out" in t]
    assert "sad/p.wav (a pipe)" in text
    assert "sad/s.wav (a socket)" in text


def test_names_that_are_not_utf8_stop_nobody(tree):
    wave = (tree / "sad" / "a.wav").read_bytes()
    for name in (b"sad/\xfcber.wav", b"angry/\xff.txt"):
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(wave)
    before = _listing(tree, {})
    assert before == _listing(tree, {})
    done = prepare("folder", root=tree, out=tree.parent / "m.jsonl")
    assert [u.audio for u in done.utterances] == FOUR
    (refusal,) = done.refusals
    assert (refusal.reason, refusal.path) == ("name is not UTF-8", "sad/\\xfcber.wav")
    (row,) = [r for r in recordings(tree) if "ber" in r.name]
    assert sum(len(piece) for piece in row.pieces()) == 8000


def test_a_root_whose_name_is_not_utf8_is_found_again(tree, monkeypatch):
    monkeypatch.setenv("SERZOO_CACHE", str(tree.parent / "cache"))
    root = tree.rename(os.fsdecode(os.fsencode(tree) + b"-\xfc"))
    out = str(root.parent / "m.jsonl")
    prepare_corpus("folder", root=str(root), out=out)
    assert len(open_corpora([], manifest=out).utterances) == 4
    assert len(open_corpora(["folder"], root=str(root)).utterances) == 4


def test_a_class_with_a_name_that_is_not_utf8_is_refused_and_named(tree):
    folder = Path(os.fsdecode(os.fsencode(tree) + b"/\xe4rger"))
    (tree / "angry").rename(folder)
    done = prepare("folder", root=tree, out=tree.parent / "m.jsonl")
    assert [u.label for u in done.utterances] == ["sad", "sad"]
    assert done.refused == {"name is not UTF-8": 2}
    assert any("'\\xe4rger' (2)" in w.message for w in done.warnings if w.kind == "label")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "sad" / "new.txt").write_text("x"),
        lambda root: (root / "sad" / "c.wav").symlink_to("nowhere"),
        lambda root: (root / "empty").mkdir(),
        lambda root: (root / "angry" / "a.wav").rename(root / "angry" / "c.wav"),
        lambda root: os.utime(root / "sad" / "a.wav", (1, 1)),
        lambda root: (root / "sad" / "._a.wav").write_bytes(b"x"),
    ],
    ids=["file", "link to nothing", "folder", "name", "time", "hidden"],
)
def test_the_catalogue_notices_what_prepare_would_tell_otherwise(tree, change):
    before = _listing(tree, {})
    change(tree)
    assert _listing(tree, {}) != before


def test_the_catalogue_sees_nothing_new_where_prepare_does_not(tree):
    before = _listing(tree, {})
    (tree / ".DS_Store").write_bytes(b"x")
    (tree / ".git").mkdir()
    (tree / ".git" / "x.wav").write_bytes(b"x")
    assert _listing(tree, {}) == before


def test_a_link_that_comes_to_life_is_another_corpus(tree, write_wave):
    (tree / "sad" / "c.wav").symlink_to(tree.parent / "late.wav")
    before = _listing(tree, {})
    assert "sad/c.wav" not in by_prepare(tree)[0]
    write_wave(tree.parent / "late.wav")
    assert _listing(tree, {}) != before
    assert "sad/c.wav" in by_prepare(tree)[0]


# -- the folder corpus: a class that vanished ---------------------------------------------------


@pytest.mark.parametrize(
    ("plant", "held"),
    [
        (lambda folder: folder.mkdir(), "joy (holds nothing)"),
        (lambda folder: (folder.mkdir(), (folder / "a.m4a").touch()), "joy (holds 1 m4a)"),
        (lambda folder: folder.symlink_to("/nonexistent"), "joy (holds nothing)"),
    ],
    ids=["empty", "m4a", "link to nothing"],
)
def test_a_sub_folder_from_which_nothing_was_taken_is_named(tree, plant, held):
    plant(tree / "joy")
    names, told = by_prepare(tree)
    assert names == FOUR
    assert any(t.startswith("folder: nothing was taken") and held in t for t in told)


def test_why_there_is_no_audio_is_in_the_error(tmp_path):
    (tmp_path / "sad").mkdir()
    for i in range(3):
        (tmp_path / "sad" / f"{i}.wav").symlink_to(f"../.git/annex/objects/{i}.wav")
    with pytest.raises(ValueError, match=r"no audio in sub-folders .*3 files.*git annex get"):
        prepare("folder", root=tmp_path)


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo", "savee", "tess", "crema_d"])
def test_published_readers_say_it_as_well(tmp_path, corpus):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").write_text(LFS)
    with pytest.raises(ValueError, match="git lfs pull"):
        prepare(corpus, root=tmp_path)


def test_a_note_is_told_once_however_often_a_reader_looks(tree, tmp_path, write_wave):
    write_wave(tmp_path / "n" / "samples" / "EB0_anger_1.wav")
    (tmp_path / "n" / "samples" / "x.m4a").touch()
    told = [w.message for w in prepare("nemo", root=tmp_path / "n").warnings]
    assert sum("m4a" in t for t in told) == 1


def test_a_place_named_by_a_common_word_is_not_taken_for_the_root(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    Path("annex").symlink_to("root")
    (tree / "sad" / "c.wav").symlink_to("../.git/annex/objects/c.wav")
    told = [w.message for w in prepare("folder", root="annex").warnings]
    assert any("git annex get" in t for t in told)


# -- what else there is --------------------------------------------------------------------------


def test_every_kind_has_words_for_one_and_for_many():
    for kind in KINDS.values():
        assert kind.what.format(n=1, s="") != kind.what.format(n=2, s="s")
        assert kind.remedy


def test_an_error_of_the_system_about_one_file_stops_nothing(tree, monkeypatch):
    real = os.stat

    def refused(path, *args, **options):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", refused)
    found = walk(tree)
    assert [p.relative_to(tree).as_posix() for p in found.take()] == FOUR[:3]
    assert found.passed == {"closed": [tree / "sad" / "deep"]}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.symlink_to("nowhere.wav"), "nowhere.wav"),
        (lambda p: p.write_text(LFS), "git lfs pull"),
        (os.mkfifo, "a pipe"),
        (lambda p: None, None),
        (lambda p: p.write_bytes(b"RIFF"), None),
    ],
)
def test_what_is_wrong_with_a_single_name(tmp_path, make, words):
    make(tmp_path / "a.wav")
    found = problem(tmp_path / "a.wav")
    assert found is None if words is None else words in found


def test_a_terminal_is_a_device():
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert "a device" in problem(Path("/dev/null"))


def test_what_is_no_fault_is_another_category(tree):
    (tree / "sad" / "._a.wav").write_bytes(b"x")
    with pytest.warns(DataNote) as caught:
        recordings(tree)
    assert issubclass(caught[0].category, DataWarning)
