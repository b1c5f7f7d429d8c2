"""Disc and fovea: exact geometry, NaN where none is seen, and a training from drawn labels to a file."""

from __future__ import annotations

import csv
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CPU, run_script
from PIL import Image
from torch import Tensor

from anatomy.landmarks import OUTPUTS, PLACES, WEIGHTS, Landmarks, find_landmarks, load_anatomy
from anatomy.windows import SIDE, Window
from datasets.images import write_png
from datasets.synthetic import draw_eye
from model import Network, UNet
from networks.checkpoints import halved, load_checkpoint, save_checkpoint
from networks.loading import load_networks
from research import anatomy
from research.anatomy import landmark_loss
from research.anatomy_labels import FOLDS, UNKNOWN, LabelledEye, find_labels, held_out, read_labelled_eyes
from research.anatomy_views import RandomWindows
from utils import UserError

VESSELS = WEIGHTS.with_name("drive_unet.pth")


class Reader(Network):
    """A perfect network for `drawn`: disc where red stands out, fovea where green is lacking."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.stack([8 * (x[:, 0] - 1.2), 8 * (-x[:, 1] - 1.2)], dim=1)


def drawn(
    size: int, disc: tuple[float, float, float] | None, fovea: tuple[float, float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A round field with a red disc and a dark fovea, each x, y and diameter in shares of the picture."""
    places = (np.arange(size) + 0.5) / size
    x, y = places[None, :], places[:, None]
    fov = np.where(np.hypot(x - 0.5, y - 0.5) < 0.48, 255, 0).astype(np.uint8)
    photograph = np.full((size, size, 3), (60, 120, 120), np.uint8)
    for spot, channel, level in ((disc, 0, 250), (fovea, 1, 0)):
        if spot:
            photograph[np.hypot(x - spot[0], y - spot[1]) < spot[2] / 2, channel] = level
    return photograph, fov


@pytest.mark.parametrize("side", [30.0, 190.5, 400.0, 1301.7])
def test_a_window_shows_each_place_where_it_says(side):
    photograph = np.zeros((900, 1000, 3), np.uint8)
    cv2.circle(photograph, (430, 520), 6, (255, 255, 255), -1)
    window = Window(430.0 + 0.21 * side, 520.0 - 0.13 * side, side)
    moments = cv2.moments(window.cut(photograph)[..., 0])
    x, y = window.place(moments["m10"] / moments["m00"], moments["m01"] / moments["m00"])
    assert (x, y) == pytest.approx((430, 520), abs=0.1 + 0.1 * side / SIDE)


def test_a_window_beyond_the_photograph_is_black():
    photograph = np.full((40, 50, 3), 200, np.uint8)
    assert not Window(500.0, 20.0, 30.0).cut(photograph).any()
    assert not Window(-5000.0, 20.0, 2000.0).cut(photograph).any()
    half = Window(49.5, 19.5, 20.0).cut(photograph)
    assert half[:, : SIDE // 2 - 10].min() == 200 and not half[:, SIDE // 2 + 10 :].any()


@pytest.mark.parametrize("size", [150, 700, 2400])
@pytest.mark.parametrize("share", [0.04, 0.15, 0.4])
def test_landmarks_are_found_at_any_size_and_zoom(size, share):
    disc, fovea = (0.7, 0.45, share), (0.7 - 2.5 * share, 0.5, 0.5 * share)
    found = find_landmarks(*drawn(size, disc, fovea if share < 0.3 else None), Reader())
    pixels = np.array([found.disc_x + 0.5, found.disc_y + 0.5, found.disc_diameter]) / size
    assert pixels == pytest.approx(disc, abs=0.04 * share + 0.5 / size)
    assert found.disc_certainty > 0.9
    if share < 0.3:
        assert (found.fovea_x / size, found.fovea_y / size) == pytest.approx(fovea[:2], abs=0.2 * share)
        assert found.side == "right"


class OneSided(Reader):
    """Sees a disc in the whole field only where it lies on the left of what it is shown; from near always."""

    def forward(self, x: Tensor) -> Tensor:
        maps = super().forward(x)
        is_whole = (x[:, 0] != 0).float().mean() < 0.75  # a round field in a square window
        return torch.where((torch.arange(SIDE) > SIDE / 2) & is_whole, -9.0, maps)


def test_a_disc_that_only_the_mirror_image_shows_is_found_where_it_is():
    disc = (0.7, 0.45, 0.15)
    found = find_landmarks(*drawn(600, disc), OneSided())
    assert (found.disc_x, found.disc_y, found.disc_diameter) == pytest.approx((420, 270, 90), abs=5)


class FromNear(Reader):
    """Takes every red spot of a whole field for a disc, from near only a disc without blue."""

    def forward(self, x: Tensor) -> Tensor:
        maps = super().forward(x)
        is_near = (x[:, 0] != 0).float().mean() > 0.75
        return torch.where(is_near & (x[:, 2:] > 1.2).expand_as(maps), -9.0, maps)


def test_what_is_no_disc_from_near_is_none_however_bright_it_is():
    photograph, fov = drawn(600, (0.7, 0.45, 0.12))
    spot, _ = drawn(600, (0.3, 0.5, 0.2))
    photograph = np.maximum(photograph, spot)
    photograph[(spot[..., 0] == 250), 2] = 250
    found = find_landmarks(photograph, fov, FromNear())
    assert (found.disc_x, found.disc_y, found.disc_diameter) == pytest.approx((420, 270, 72), abs=5)


def test_what_is_not_there_is_nan():
    photograph, fov = drawn(300, None)
    found = find_landmarks(photograph, fov, Reader())
    assert all(math.isnan(value) for value in (found.disc_x, found.disc_y, found.disc_diameter, found.fovea_x))
    assert found.disc_certainty < 0.5 and found.fovea_certainty < 0.5
    assert found.side == ""


def test_a_field_of_view_thinner_than_a_pixel_of_the_network_shows_nothing():
    photograph, fov = np.full((1500, 1500, 3), 90, np.uint8), np.eye(1500, dtype=np.uint8) * 255
    found = find_landmarks(photograph, fov, Reader())
    assert all(math.isnan(value) for value in (found.disc_x, found.disc_diameter, found.fovea_x))


def test_a_disc_that_the_border_cuts_has_a_place_but_no_diameter():
    whole = find_landmarks(*drawn(400, (0.86, 0.5, 0.15)), Reader())
    cut = find_landmarks(*drawn(400, (0.94, 0.5, 0.15)), Reader())
    assert whole.disc_diameter == pytest.approx(60, abs=2)
    assert 330 < cut.disc_x < 400 and math.isnan(cut.disc_diameter)


def test_a_dark_spot_too_near_or_too_far_from_the_disc_is_no_fovea():
    for x in (0.75, 0.1):
        found = find_landmarks(*drawn(400, (0.85, 0.5, 0.15), (x, 0.5, 0.06)), Reader())
        assert found.disc_x > 300 and math.isnan(found.fovea_x)


def test_the_side_follows_from_where_the_disc_lies():
    photograph, fov = drawn(400, (0.85, 0.5, 0.15), (0.47, 0.52, 0.06))
    right = find_landmarks(photograph, fov, Reader())
    left = find_landmarks(np.ascontiguousarray(photograph[:, ::-1]), fov, Reader())
    assert (right.side, left.side) == ("right", "left")
    assert find_landmarks(*drawn(400, (0.52, 0.5, 0.22)), Reader()).side == "", "no fovea"


def test_an_eye_that_lies_on_its_side_is_neither_right_nor_left():
    lying = Landmarks(100, 50, 30, 0.9, 95, 120, 0.9)
    assert lying.side == ""


def test_threads_may_share_a_network():
    photographs = [drawn(300, (0.3 + 0.05 * k, 0.5, 0.15)) for k in range(8)]
    network = Reader()
    one_by_one = [find_landmarks(*each, network) for each in photographs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: find_landmarks(*each, network), photographs))
    assert [astuple(one)[:4] for one in together] == [astuple(one)[:4] for one in one_by_one]


def test_the_shipped_network_is_small_and_sees_no_disc_in_plain_pictures():
    assert WEIGHTS.stat().st_size <= 2 * 2**20
    assert load_anatomy() is load_anatomy()
    rng = np.random.default_rng(1)
    fov = drawn(200, None)[1]
    for photograph in (np.zeros((200, 200, 3)), rng.integers(90, 110, (200, 200, 3))):
        found = find_landmarks(photograph.astype(np.uint8), fov)
        assert math.isnan(found.disc_x) and math.isnan(found.fovea_x)


def test_a_network_of_another_kind_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="finds disc and fovea, not vessels"):
        load_networks([WEIGHTS], None, CPU)
    with pytest.raises(UserError, match="finds vessels, not disc and fovea"):
        load_anatomy(VESSELS)


@pytest.mark.parametrize(
    "outputs", [7, [], ["disc"], ["disc", 3], ["fovea", "disc"], {"disc": 1}, ["x" * 10_000]]
)
def test_outputs_of_an_untrusted_file_are_checked(outputs, tmp_path):
    network = UNet(3, 2, width=4, depth=2)
    content = {"model": network.config, "weights": dict(network.state_dict())}
    save_checkpoint(tmp_path / "a.pth", {**content, "outputs": outputs})
    with pytest.raises(UserError, match="a.pth") as error:
        load_checkpoint(tmp_path / "a.pth", CPU, OUTPUTS)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_file_has_as_many_channels_as_it_names_outputs(tmp_path):
    for channels in (1, 3):
        network = UNet(3, channels, width=4, depth=2)
        content = {"model": network.config, "weights": dict(network.state_dict()), "outputs": list(OUTPUTS)}
        save_checkpoint(tmp_path / "a.pth", content)
        with pytest.raises(UserError, match="no network's of this program"):
            load_checkpoint(tmp_path / "a.pth", CPU, OUTPUTS)


def test_unknown_pixels_teach_nothing():
    rng = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(2, 2, 16, 16, generator=rng) for _ in range(2))
    known = torch.ones(2, 2, 16, 16)
    known[:, :, :, 8:] = 0
    targets = torch.zeros(2, 2, 16, 16)
    targets[:, :, 4:9, 2:7] = 1
    loss = landmark_loss(logits, targets, known)
    assert loss == landmark_loss(torch.where(known > 0, logits, other), targets, known)
    assert loss != landmark_loss(other, targets, known)
    perfect = landmark_loss(20 * (2 * targets - 1), targets, known)
    assert 0 <= perfect < 0.01 < loss


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn eyes of each data set, with the labels as they unpack."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(7)

    def table(path: Path, columns: str, rows: list[list[object]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns.split(","), *rows])

    def photograph(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, draw_eye(rng, 120, 130)[0])

    disc = cv2.circle(np.zeros((120, 130), np.uint8), (40, 60), 9, 255, -1)
    for k in (21, 22):
        name = f"{k}_training.png"
        for place in ("DRIVE/training/images", "IDRiD/disc_images", "IDRiD/images"):
            photograph(folder / place / name)
        for place in ("DRIVE/disc", "IDRiD/disc"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            write_png(folder / place / name, disc)
    names = ["21_training", "22_training"]
    marks = [["HRF", n, 40, 60, 19, "", ""] for n in ("01_h", "02_h")]
    for row in marks:
        photograph(folder / "HRF" / "images" / f"{row[1]}.jpg")
        photograph(folder / "HRF" / "manual1" / f"{row[1]}.tif")  # a label of the same name
    table(folder / "marks.csv", f"data_set,image,{','.join(PLACES)}", marks)
    columns = "image,disc_x,disc_y,fovea_x,fovea_y"
    table(folder / "IDRiD" / "centres.csv", columns, [[n, 40.5, 60, 80, 62.5] for n in names])
    return folder


@pytest.fixture(autouse=True)
def own_marks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks are those of the drawn eyes, where there are any."""
    if "labelled" in request.fixturenames:
        folder = request.getfixturevalue("labelled")
        monkeypatch.setattr("research.anatomy_labels.MARKS", folder / "marks.csv")


def eyes_of(folder: Path) -> list[LabelledEye]:
    return list(read_labelled_eyes(find_labels(folder, folder / "DRIVE", [folder / "HRF"])))


def test_all_kinds_of_labels_say_the_same(labelled):
    eyes = eyes_of(labelled)
    assert [eye.group for eye in eyes] == [
        g for g in ("DRIVE", "IDRiD drawn", "IDRiD", "HRF") for _ in range(2)
    ]
    hrf = find_labels(labelled, None, [labelled / "HRF"])
    assert {label.image.parent.name for label in hrf if label.group == "HRF"} == {"images"}, "not the labels"
    for eye in eyes:
        assert (eye.disc_x, eye.disc_y) == pytest.approx((40, 60), abs=0.51)
        assert eye.disc[60, 40] == 255 and eye.disc[20, 100] == 0
        assert (eye.fovea is not None) == (eye.group == "IDRiD")
        assert (UNKNOWN in eye.disc) == (eye.group in ("HRF", "IDRiD"))
        if eye.group != "IDRiD":  # which marks centres only
            assert eye.disc_diameter == pytest.approx(18.5, abs=0.6)


def test_marks_of_this_project_are_of_the_photograph_not_its_labels(tmp_path):
    for name in ("im0002.ah.ppm", "im0002.ppm", "im0324.ppm", "Image_01L.jpg", "Image_01L_1stHO.png"):
        path = tmp_path / ("labels" if ".ah" in name else "images") / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((605, 700, 3), 90, np.uint8)).save(path)
    found = {label.image.name: label for label in find_labels(tmp_path, None, [tmp_path / "images"])}
    assert found.keys() == {"im0002.ppm", "Image_01L.jpg"}, "nobody could tell a disc in im0324"
    assert find_labels(tmp_path, None, [tmp_path])[0].image.name == "im0002.ppm"
    assert found["im0002.ppm"].group == "STARE" and found["im0002.ppm"].disc == (95.5, 276.0, 99.5)
    assert found["Image_01L.jpg"].group == "CHASE_DB1"
    with pytest.raises(UserError, match="not STARE, HRF or CHASE_DB1"):
        find_labels(tmp_path, None, [tmp_path / "labels"])


def test_labels_without_their_photograph_or_table_are_named(labelled, tmp_path):
    with pytest.raises(UserError, match="images: no such folder"):
        find_labels(labelled, tmp_path)
    (tmp_path / "training" / "images").mkdir(parents=True)
    with pytest.raises(UserError, match="no photograph 21_training"):
        find_labels(labelled, tmp_path)
    with pytest.raises(UserError, match="no labels in it"):
        find_labels(tmp_path, None)


def test_photographs_of_one_eye_are_held_out_together():
    rng = np.random.default_rng(5)
    drawings = [draw_eye(rng, 200, 200) for _ in range(7)]

    def eye(group: str, number: int, name: str) -> LabelledEye:
        photograph, _, fov = drawings[number]
        return LabelledEye(name, group, photograph, fov, np.zeros_like(fov), 50, 90, 20, None, 1.0)

    # 01 of the drawn ones shows the eye of 3 again, and 2 is a copy of 1
    eyes = [eye("DRIVE", 0, "21"), eye("IDRiD drawn", 3, "01"), eye("IDRiD drawn", 4, "02")]
    eyes += [eye("IDRiD", number, str(k)) for k, number in enumerate([5, 1, 1, 3, 6, 2])]
    folds = [held_out(eyes, fold) for fold in range(FOLDS)]
    assert not any(fold[0] for fold in folds)
    assert [sum(fold[i] for fold in folds) for i in range(1, len(eyes))] == [1] * (len(eyes) - 1)
    for fold in folds:
        assert fold[1] == fold[6] and fold[4] == fold[5]
        assert 0 < sum(fold) < len(eyes) - 1


def test_views_show_disc_and_fovea_where_the_labels_say(labelled):
    views, shown = RandomWindows(eyes_of(labelled), seed=3, length=9999), np.zeros(2)
    for i in range(60):
        pixels, targets, known = views[i]
        assert pixels.shape == (3, SIDE, SIDE) and np.isfinite(pixels).all()
        assert set(np.unique(targets)) <= {0, 1} and set(np.unique(known)) <= {0, 1}
        assert not targets[known == 0].any()
        shown += targets.any(axis=(1, 2))
    assert 30 <= shown[0] < 60  # mostly, but not always
    assert 3 <= shown[1] < 40
    again = RandomWindows(eyes_of(labelled), seed=3, length=9)[5]
    assert all((a == b).all() for a, b in zip(views[5], again, strict=True))


def test_from_labels_to_a_file_that_finds(labelled, tmp_path):
    flags = ["--drive", labelled / "DRIVE", "--marked", labelled / "HRF", "--out", tmp_path / "a.pth"]
    small = ["--steps", 3, "--batch-size", 2, "--device", "cpu"]
    run_script(anatomy.main, labelled, *flags, *small)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert len(content["split"]["train"]) == 8
    torch.manual_seed(42)  # as the training begins, so that what differs has been trained
    before = halved(UNet(3, 2, width=anatomy.WIDTH, depth=4).state_dict())
    moved = [name for name in before if not torch.equal(before[name], content["weights"][name])]
    assert any("bottleneck" in name for name in moved)
    found = find_landmarks(*drawn(200, (0.5, 0.5, 0.15)), load_anatomy(tmp_path / "a.pth"))
    anatomy.refuse_other_file(tmp_path / "a.pth")  # it may be trained anew
    assert 0 <= found.disc_certainty <= 1


@pytest.mark.parametrize("whose", ["a text", "of vessels", "a folder"])
def test_training_replaces_nothing_but_weights_of_its_kind(whose, labelled, tmp_path):
    path, network = tmp_path / "file.pth", UNet(width=2, depth=1)
    if whose == "a folder":
        path.mkdir()
    elif whose == "a text":
        path.write_text("notes")
    else:
        save_checkpoint(path, {"model": network.config, "weights": network.state_dict()})
    before = path.is_file() and path.read_bytes()
    with pytest.raises(UserError, match=r"^--out .*file\.pth: "):
        run_script(anatomy.main, labelled, "--out", path, "--device", "cpu", "--steps", 1)
    assert (path.is_file() and path.read_bytes()) == before


def test_flags_that_cannot_be_are_refused(labelled, capsys):
    with pytest.raises(SystemExit):
        run_script(anatomy.main, labelled, "--steps", 0)
    assert "--steps: give a number above 0" in capsys.readouterr().err


def test_windows_around_a_disc_beyond_the_border_show_some_of_the_eye(labelled):
    eye = replace(eyes_of(labelled)[0], disc_x=-25.0)
    windows = RandomWindows([eye], seed=0, length=200)
    assert all(np.abs(windows[i][0]).sum() > 0 for i in range(200))
