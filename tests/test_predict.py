"""predict.py segments any photograph, finds its field of view and scale, and harms no file of the user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import forked
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, overlap, run_script
from PIL import Image

import predict
import test as tester
from anatomy.photograph import look_at
from batch.folders import find_photographs, name_results
from datasets.field_of_view import estimate_fov, fov_diameter
from datasets.images import equalize, list_images, normalize, read_image, read_mask, statistics, write_png
from datasets.synthetic import draw_eye
from model import ResUNet, UNet
from networks import checkpoints
from networks.checkpoints import load_checkpoint
from pages.results import COMPARISON, result_file
from prediction import segmentation
from prediction.scale import factor_of
from scoring import metrics
from scoring.other_masks import name_folders
from system import devices
from system.records import RECORD
from utils import UserError

DRIVE = ROOT.parent / "shared" / "DRIVE"


@pytest.fixture(scope="module")
def eye() -> tuple[np.ndarray, np.ndarray]:
    """A photograph of DRIVE's size and its field of view."""
    photograph, _, fov = draw_eye(np.random.default_rng(3))
    return photograph, fov


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    """A small photograph, 150 high and 140 wide."""
    return draw_eye(np.random.default_rng(4), 150, 140)[0]


@pytest.fixture(scope="module")
def weights(files: Path) -> Path:
    """A checkpoint of a network that was trained for a moment."""
    return files / "checkpoint.pth"


def run_predict(weights: Path, out: Path, *more: object) -> int | None:
    """Run predict.py."""
    return run_script(predict.main, "--weights", weights, "--out", out, "--device", "cpu", *more)


def disc(diameter: float, size: int) -> np.ndarray:
    """A field of view in the middle of a square frame."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    return np.where(np.hypot(x, y) <= diameter / 2, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg", "bmp", "gif", "ppm"])
def test_every_format_gives_mask_probability_and_picture_of_its_own_size(small, weights, tmp_path, suffix):
    Image.fromarray(small).save(tmp_path / f"colour.{suffix}")
    Image.fromarray(small[..., 1]).resize((201, 97)).save(tmp_path / f"grey.{suffix}")
    assert run_predict(weights, tmp_path / "out", "--threshold", 0.3, tmp_path) == 0
    for name, shape in (("colour", (150, 140)), ("grey", (97, 201))):
        mask = iio.imread(tmp_path / "out" / "masks" / f"{name}.png")
        levels = iio.imread(tmp_path / "out" / "probability" / f"{name}.png")
        assert mask.shape == levels.shape == shape
        assert mask.dtype == np.uint8
        assert levels.dtype == np.uint16
        assert set(np.unique(mask)) == {0, 255}
        assert ((levels >= metrics.level_of(0.3)) == (mask == 255)).all()
        assert iio.imread(tmp_path / "out" / "outlines" / f"{name}.jpg").shape == (*shape, 3)


def test_outside_the_field_of_view_there_are_no_vessels(small, weights, tmp_path):
    write_png(tmp_path / "eye.png", small)
    run_predict(weights, tmp_path / "out", "--threshold", 0, tmp_path / "eye.png")
    assert (read_mask(tmp_path / "out" / "masks" / "eye.png") == estimate_fov(small)).all()
    assert not iio.imread(tmp_path / "out" / "probability" / "eye.png")[estimate_fov(small) == 0].any()


def test_it_goes_on_past_bad_files_and_names_each_with_the_reason(small, weights, tmp_path):
    folder = tmp_path / "photographs"
    write_png(folder / "eye2.png", small)
    write_png(folder / "eye10.png", small)
    (folder / "eye3.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    given = ["empty", "photogaphs/eye2.png", "photographs", "--weights", weights, "--device", "cpu"]
    done = forked.finish("predict.py", *given, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    start = lines.index("predict.py: 3 could not be segmented:")
    assert lines[start + 1 :] == [
        "  empty: no images in this folder",
        f"  {Path('photogaphs/eye2.png')}: no such file or folder; did you mean photographs?",
        lines[-1],
    ]
    assert lines[-1].startswith(f"  {Path('photographs/eye3.png')}: not a TIFF, PNG, JPEG, ")
    out = tmp_path / "results" / "predict"
    assert [f.name for f in list_images(out / "outlines")] == ["eye2.jpg", "eye10.jpg"]
    assert f"\n{Path('results/predict')}: 2 of 3 photographs" in done.stdout
    assert not list(out.rglob(".*"))


def test_files_that_are_left_out_are_named_at_the_end_with_what_to_do(small, weights, tmp_path, capsys):
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(small).save(folder / "eye.JPG")
    for name in ("a.pdf", "b.zip", "im1.tar.gz", "notes.txt", "Thumbs.db", ".hidden"):
        (folder / name).touch()
    assert run_predict(weights, tmp_path / "out", folder) == 0
    said = capsys.readouterr().err
    lines = [
        "other files, left out (4):",
        f"  {folder / 'a.pdf'}: a PDF; export its pictures as PNG or JPEG",
        f"  {folder / 'b.zip'}: an archive; unpack it",
        f"  {folder / 'im1.tar.gz'}: gzipped; unpack it, for example with gunzip",
        f"  {folder / 'notes.txt'}: not an image that can be read here",
    ]
    assert said.splitlines()[-5:] == lines


def test_a_missing_path_is_an_error_before_anything_is_loaded(tmp_path):
    (tmp_path / "Left.JPG").touch()
    with pytest.raises(UserError, match="no such file or folder; did you mean .*Left.JPG"):
        run_predict(tmp_path / "none.pth", tmp_path / "out", tmp_path / "lefl.jpg")
    assert not (tmp_path / "out").exists()


def test_photographs_of_the_same_name_do_not_overwrite_each_other(small, weights, tmp_path, capsys):
    for k, name in enumerate(("a/1.png", "b/1.jpg", "c/1_2.png", "d/Eye.png", "e/eye.png")):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(small[: 140 - k]).save(tmp_path / name)
    assert run_predict(weights, tmp_path / "out", *(tmp_path / part for part in "abcde")) == 0
    heights = {f.stem: len(iio.imread(f)) for f in list_images(tmp_path / "out" / "masks")}
    assert heights == {"1": 140, "1_3": 139, "1_2": 138, "Eye": 137, "eye_2": 136}
    said = capsys.readouterr().out
    assert f"{tmp_path / 'b' / '1.jpg'}: called 1_3 in the results" in said


def test_a_photograph_named_twice_is_segmented_once(tmp_path):
    for name in ("eye10.png", "eye9.png"):
        (tmp_path / name).touch()
    paths = [tmp_path, tmp_path / "eye9.png", tmp_path / ".." / tmp_path.name]
    found = find_photographs(paths)
    assert [path.name for path in found.photographs] == ["eye9.png", "eye10.png"]
    assert not found.problems


@pytest.mark.parametrize("part", ["", "masks", "probability"])
def test_results_never_overwrite_photographs(small, weights, tmp_path, part):
    write_png(tmp_path / part / "eye.png", small)
    with pytest.raises(UserError, match="choose another folder"):
        run_predict(weights, tmp_path, tmp_path / part)
    assert (read_image(tmp_path / part / "eye.png") == small).all()


def test_no_name_leads_outside_the_results(tmp_path, monkeypatch):
    names = ["x.png", "...png", "..  .png", "a/..x.png", "a/b..c/y.png", "masks/z.png", "a.png/z.png"]
    for name in names:
        write_png(tmp_path / "eyes" / name, np.zeros((2, 2), np.uint8))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    hidden = [Path("../eyes/...png"), Path("../eyes/..  .png"), Path("../eyes/a/..x.png")]  # named themselves
    listing = find_photographs([Path("../eyes"), Path("../here/../eyes/x.png"), *hidden], None, True)
    out = tmp_path / "results"
    places = {(out / result_file("masks", name)).resolve() for name in name_results(listing.photographs, out)}
    assert len(places) == len(names)
    assert all(place.is_relative_to(out / "masks") for place in places)


def test_no_folder_of_masks_has_its_results_elsewhere(tmp_path):
    given = [Path(tmp_path.anchor), tmp_path / "a" / COMPARISON, tmp_path / "b" / RECORD, tmp_path / "c"]
    named = name_folders(given, tmp_path / "results")
    assert {own.parent for _, own in named.values()} == {tmp_path / "results"}
    assert not {own.name for _, own in named.values()} & {COMPARISON, RECORD}


def lively_network(kind: type[UNet | ResUNet], depth: int) -> UNet | ResUNet:
    """A network without training whose probabilities, like a trained one's, are spread over all of [0, 1]."""
    torch.manual_seed(0)
    model = kind(width=4, depth=depth)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        logits = model(torch.randn(2, 3, 256, 256))  # batch normalisation takes its measures here
        model.classifier.weight *= 2 / logits.std()
    return model.eval()


@pytest.mark.parametrize(("views", "clahe"), [(1, False), (1, True), (8, True)])
@pytest.mark.parametrize(
    ("kind", "depth", "shape"), [(UNet, 3, (250, 237)), (UNet, 3, (150, 301)), (ResUNet, 2, (259, 206))]
)
def test_tiles_give_what_the_whole_gives(monkeypatch, kind, depth, shape, views, clahe):
    model = lively_network(kind, depth)
    model.clahe = clahe
    photograph = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    fov = np.full(shape, 255, np.uint8)
    # bfloat16 would hide seams in its rounding
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    whole = predict.segment(model, photograph, fov, views)
    assert whole.std() > 0.05
    monkeypatch.setattr(segmentation, "TILE", 160)
    assert len(list(segmentation.tiles(shape, model.grid, model.margin))) > 4
    assert np.abs(predict.segment(model, photograph, fov, views) - whole).max() < 1e-4


@pytest.mark.parametrize("views", [2, 4, 8])
def test_a_network_that_knows_even_contrast_sees_half_of_the_views_with_it(views, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    model = lively_network(UNet, 2)
    photograph, _, fov = draw_eye(np.random.default_rng(0), 120, 116)
    even = equalize(photograph, fov)
    plain, half, evened = (
        predict.segment(model, image, fov)
        for image in (photograph, cv2.addWeighted(photograph, 0.5, even, 0.5, 0), even)
    )
    tensors = [
        torch.from_numpy(normalize(image, fov, *statistics(image, fov)))[None] for image in (photograph, even)
    ]
    with torch.inference_mode():
        upright, turned = (segmentation.predict_views(model, image, views)[:, 0] for image in tensors)
    model.clahe = True
    assert (predict.segment(model, photograph, fov) == half).all(), "one view has half of it"
    assert not (half == plain).all() and not (half == evened).all()
    wanted = torch.cat([upright[: views // 2], turned[views // 2 :]]).mean(dim=0).numpy() * (fov > 0)
    assert np.abs(predict.segment(model, photograph, fov, views) - wanted).max() < 1e-5
    nothing = np.zeros_like(fov)
    assert not predict.segment(model, photograph, nothing, views).any()


def test_tiles_are_small_and_cover_every_pixel_once():
    seen = np.zeros((2336, 3504), int)
    for tile, around, inner in segmentation.tiles(seen.shape, grid=16, margin=128):
        seen[tile] += 1
        piece = seen[around]
        assert piece.size <= 1.1 * segmentation.TILE**2
        assert np.shares_memory(piece[inner], seen[tile])
        assert piece[inner].shape == seen[tile].shape
    assert (seen == 1).all()


@pytest.mark.parametrize("length", [1025, 1080, 1440, 1795, 3000])
def test_tiles_are_of_about_one_size(length):
    grid, margin = 8, 48
    own = [tile[0].stop - tile[0].start for tile, _, _ in segmentation.tiles((length, 10), grid, margin)]
    assert len(own) == -(-length // (segmentation.TILE - 2 * margin)), "no more than are needed"
    assert max(own) - min(own) <= len(own) * grid


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (40, 9)])
def test_any_size_is_segmented(shape):
    photograph, fov = np.zeros((*shape, 3), np.uint8), np.full(shape, 255, np.uint8)
    probability = predict.segment(UNet(width=4, depth=3).eval(), photograph, fov, scale=1.7)
    assert probability.shape == shape
    assert probability.dtype == np.float32


@pytest.mark.parametrize(
    ("diameter", "scale"),
    [(512, 1), (540, 1), (568, 1), (1080, 1 / 2), (1650, 1 / 3), (270, 2.03), (740, 0.74)],
)
def test_the_field_of_view_is_brought_to_drives_size(diameter, scale):
    found = fov_diameter(disc(diameter, diameter + 30))
    assert factor_of(found) == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize(
    "cut", [np.s_[200:], np.s_[200:-200], np.s_[:, 250:], np.s_[:, :-300], np.s_[150:, 150:]]
)
def test_the_diameter_of_a_cut_off_disc_follows_from_its_circle(cut):
    fov = disc(1300, 1320)
    assert fov_diameter(fov[cut]) == pytest.approx(fov_diameter(fov), rel=0.02)


def test_a_frame_full_of_retina_is_never_enlarged_beyond_drives_scale():
    for shape, most in (((200, 300, 3), 1), ((2000, 3000, 3), 0.2)):
        taken = look_at(np.full(shape, 128, np.uint8))
        assert not taken.border
        assert factor_of(taken.diameter) <= most


def test_an_enlarged_photograph_gives_the_same_vessels(eye):
    photograph, fov = eye
    # the weights that users have: a network that was trained for a moment finds hardly a vessel
    model, checkpoint = load_checkpoint(ROOT / "files" / "drive_unet.pth", CPU)
    native = predict.segment(model, photograph, fov)
    size = (2 * fov.shape[1], 2 * fov.shape[0])
    enlarged = cv2.resize(photograph, size, interpolation=cv2.INTER_CUBIC)
    found = estimate_fov(enlarged)
    probability = predict.segment(model, enlarged, found, scale=factor_of(fov_diameter(found)))
    assert probability.shape == enlarged.shape[:2]
    enlarged_native = cv2.resize(native, size)
    difference = np.abs(enlarged_native - probability)[found > 0].mean()
    assert difference < 0.2 * native[fov > 0].std()
    masks = [(p >= checkpoint["threshold"]) & (found > 0) for p in (enlarged_native, probability)]
    assert overlap(*masks) > 0.95 and masks[0].mean() > 0.05


def with_colour(photograph: np.ndarray, fov: np.ndarray, colour: int) -> np.ndarray:
    """The photograph in other surroundings."""
    return np.where(fov[..., None] > 0, photograph, np.uint8(colour))


def with_text(photograph: np.ndarray, colour: int) -> np.ndarray:
    """The photograph with text in two corners, and a pointer from a third into the field of view."""
    marked = photograph.copy()
    height, width = photograph.shape[:2]
    for text, at in (("OD 2024", (5, 40)), ("No. 12", (10, height - 12))):
        cv2.putText(marked, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (colour,) * 3, 2)
    cv2.line(marked, (width - 5, height - 5), (width // 2, height // 2), (colour,) * 3, 2)
    return marked


def as_jpeg(photograph: np.ndarray) -> np.ndarray:
    """The photograph as a small JPEG file keeps it."""
    return cv2.imdecode(cv2.imencode(".jpg", photograph, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)


def resized(photograph: np.ndarray, fov: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Both at another size."""
    size = (round(fov.shape[1] * scale), round(fov.shape[0] * scale))
    return cv2.resize(photograph, size), cv2.resize(fov, size, interpolation=cv2.INTER_NEAREST)


def with_bars(image: np.ndarray) -> np.ndarray:
    """The image with black bars above and below."""
    barred = image.copy()
    barred[:80] = barred[-80:] = 0
    return barred


VARIANTS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "as it is": lambda p, f: (p, f),
    "cut above": lambda p, f: (p[120:], f[120:]),
    "cut below": lambda p, f: (p[:-120], f[:-120]),
    "cut left": lambda p, f: (p[:, 120:], f[:, 120:]),
    "cut right": lambda p, f: (p[:, :-120], f[:, :-120]),
    "cut above and below": lambda p, f: (p[80:-80], f[80:-80]),
    "cut at a corner": lambda p, f: (p[150:, 150:], f[150:, 150:]),
    "black bars": lambda p, f: (with_bars(p), with_bars(f)),
    "white": lambda p, f: (with_colour(p, f, 255), f),
    "light grey": lambda p, f: (with_colour(p, f, 225), f),
    "dark grey": lambda p, f: (with_colour(p, f, 25), f),
    "text and a pointer": lambda p, f: (with_text(p, 255), f),
    "text and a pointer on white": lambda p, f: (with_text(with_colour(p, f, 255), 0), f),
    "grey photograph": lambda p, f: (np.repeat(p[..., 1:2], 3, axis=2), f),
    "jpeg": lambda p, f: (as_jpeg(p), f),
    "jpeg on white": lambda p, f: (as_jpeg(with_colour(p, f, 255)), f),
    "dim": lambda p, f: (p // 4, f),
    "three times as large": lambda p, f: resized(p, f, 3),
    "half as large": lambda p, f: resized(p, f, 0.5),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_field_of_view_is_found(eye, variant):
    photograph, fov = VARIANTS[variant](*eye)
    estimated = estimate_fov(np.ascontiguousarray(photograph))
    assert set(np.unique(estimated)) <= {0, 255}
    assert overlap(estimated, fov) > 0.97


def test_the_fields_of_view_of_drive_are_found():
    if not DRIVE.is_dir():
        pytest.skip("DRIVE is not there")
    for part in ("training", "test"):
        for path in list_images(DRIVE / part / "images"):
            (mask,) = (DRIVE / part / "mask").glob(f"{path.stem}_mask.*")
            estimated = estimate_fov(read_image(path))
            assert overlap(estimated, read_mask(mask)) > 0.98, path.name
            assert factor_of(fov_diameter(estimated)) == 1, path.name


def test_test_py_and_predict_py_give_the_same_files(eye, weights, tmp_path):
    image = tmp_path / "new_data" / "test" / "image" / "eye.png"
    write_png(image, eye[0])
    shared = ["--weights", weights, "--device", "cpu", "--views=2"]
    assert run_script(tester.main, "--data", tmp_path / "new_data", "--results", tmp_path / "a", *shared) == 0
    assert run_script(predict.main, image, "--out", tmp_path / "b", *shared) == 0
    for part in ("masks", "probability"):
        files = [tmp_path / where / part / "eye.png" for where in "ab"]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_weights_are_the_published_ones_or_else_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, roots = ("drive_unet.pth", "checkpoint.pth"), (Path(), tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"no drive_unet.pth and no checkpoint.pth in files"):
        checkpoints.find_weights(names, roots)
    (tmp_path / "files").mkdir()
    for name in ("checkpoint.pth", "drive_unet.pth"):
        (tmp_path / "files" / name).touch()
        assert checkpoints.find_weights(names, roots) == Path("files") / name


def test_the_documented_python_runs(small, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "photographs.md").read_text(encoding="utf-8")
    section = page.split("# From Python\n")[1]
    block = section.split("```python\n")[1].split("```")[0]
    assert '"."' in block
    monkeypatch.chdir(tmp_path)
    Image.fromarray(small).save("eye.jpg")
    names: dict[str, object] = {}
    exec(block.replace('"."', repr(str(ROOT))), names)
    assert names["result"].probability.shape == names["result"].mask.shape == small.shape[:2]
