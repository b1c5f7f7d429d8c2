"""Each network sees photographs at the diameter at which it was trained; a user can say how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import CPU, landmarks, read_csv, run_script

import predict
import test as tester
from anatomy.cameras import Camera, camera_of_photograph, cameras_of, doubt_disc, sizes_of
from anatomy.landmarks import Landmarks
from anatomy.photograph import DIAMETER_FLAG, DISC_SHARE, Photograph, look_at
from datasets.images import write_png
from datasets.synthetic import draw_eye
from model import Ensemble, UNet
from networks.checkpoints import load_checkpoint, save_checkpoint
from networks.loading import load_networks
from prediction import segmenter
from prediction.scale import Scale, factor_of, plan_scale
from prediction.segmentation import segment
from utils import UserError


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The factors at which photographs are seen from now on."""
    noted: list[float] = []

    def watched(model: UNet, image: np.ndarray, fov: np.ndarray, views: int, factor: float) -> np.ndarray:
        noted.append(factor)
        return segment(model, image, fov, views, factor)

    monkeypatch.setattr(segmenter, "segment", watched)
    return noted


def save_network(path: Path, **more: object) -> Path:
    """A checkpoint of a tiny network, with more that it says."""
    network = UNet(width=2, depth=1)
    save_checkpoint(path, {"model": network.config, "weights": network.state_dict(), "threshold": 0.5, **more})
    return path


@pytest.mark.parametrize(("diameter", "factor"), [(274, 3), (88, 1), (66, 0.75)])
def test_test_py_brings_eyes_to_the_diameter_of_the_network(diameter, factor, new_data, tmp_path, factors):
    own = save_network(tmp_path / "own.pth", diameter=diameter)
    weights = ["--weights", own, "--device", "cpu", "--views=1"]
    assert run_script(tester.main, "--data", new_data, "--results", tmp_path / "results", *weights) == 0
    assert factors == pytest.approx([factor] * 3, rel=0.06)


@pytest.mark.parametrize("diameter", [0, -5, float("nan"), 1e9, "548", None, True])
def test_a_checkpoint_with_an_absurd_diameter_is_refused(diameter, tmp_path):
    own = save_network(tmp_path / "own.pth", diameter=diameter)
    with pytest.raises(UserError, match=r"own.pth: its diameter is .*, not from 64 to 8192"):
        load_checkpoint(own, CPU)


def test_networks_of_two_diameters_cannot_be_averaged(tmp_path):
    small, large = save_network(tmp_path / "small.pth"), save_network(tmp_path / "large.pth", diameter=720)
    with pytest.raises(UserError, match="548 per field of view and 720 per field of view, which cannot be"):
        load_networks([small, large], None, CPU)
    model, _ = load_networks([large] * 2, None, CPU)
    assert isinstance(model, Ensemble)
    assert model.diameter == 720


def write_test_eyes(folder: Path, disc: float, sides: Sequence[int]) -> None:
    """A network that was trained with so many pixels per disc, and drawn eyes of these sides in data/test."""
    save_network(folder / "own.pth", disc=disc, diameter=disc / DISC_SHARE)
    for k, side in enumerate(sides):
        photograph, vessels, _ = draw_eye(np.random.default_rng(k), side, side)
        write_png(folder / "data" / "test" / "image" / f"{k}.png", photograph)
        write_png(folder / "data" / "test" / "mask" / f"{k}.png", vessels)


def see_with_both(folder: Path) -> list[object]:
    """Let test.py and then predict.py see what `write_test_eyes` writes; returns their flags."""
    flags = ["--weights", folder / "own.pth", "--device", "cpu", "--views", 1]
    run_script(tester.main, "--data", folder / "data", "--results", folder / "results", *flags)
    run_script(predict.main, folder / "data" / "test" / "image", "--out", folder / "out", *flags)
    return flags


def test_test_py_and_predict_py_see_an_eye_at_the_same_scale(tmp_path, factors):
    write_test_eyes(tmp_path, 61.0, (120, 150, 300))
    see_with_both(tmp_path)
    assert len(set(factors[:3])) == 3
    assert sorted(factors[:3]) == sorted(factors[3:])


@pytest.mark.parametrize("native", [300, 548, 700, 822, 1096, 3300])
def test_a_photograph_is_seen_at_the_diameter_of_the_training_whatever_its_pixels(native):
    assert native * factor_of(native) == pytest.approx(548, rel=0.07)


@pytest.mark.parametrize("settings", [None, {}, {"clahe": None}, {"clahe": "much"}, {"clahe": 0.0}])
def test_a_network_trained_without_even_contrast_sees_photographs_as_they_are(settings, tmp_path):
    own = save_network(tmp_path / "own.pth", settings=settings)
    assert not load_checkpoint(own, CPU)[0].clahe
    evened = save_network(tmp_path / "several.pth", settings={"clahe": 0.5})
    assert load_checkpoint(evened, CPU)[0].clahe
    several, _ = load_networks([evened] * 2, None, CPU)
    both, _ = load_networks([own, evened], None, CPU)
    assert several.clahe and not both.clahe


@pytest.fixture
def predicted(tmp_path: Path, factors: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A network of diameter 200, a photograph and a close-up in files; collects the scales used."""
    save_network(tmp_path / "own.pth", diameter=200)
    photograph, _, _ = draw_eye(np.random.default_rng(0), 116, 112)
    iio.imwrite(tmp_path / "eye.png", photograph)
    iio.imwrite(tmp_path / "close-up.png", photograph[33:83, 31:81])
    monkeypatch.chdir(tmp_path)
    return factors


FLAGS = ["--weights", "own.pth", "--views=1", "--device", "cpu"]


def test_predict_py_finds_the_diameter_and_says_where_it_guesses(predicted, capsys):
    assert run_script(predict.main, "eye.png", "close-up.png", *FLAGS) == 0
    assert predicted[0] == pytest.approx(200 / 108, rel=0.1)
    assert predicted[1] == pytest.approx(200 / 548)
    said = capsys.readouterr().out
    assert f"its diameter is a guess; give --diameter, {DIAMETER_FLAG}:\n  close-up.png: 548 pixels" in said
    assert "eye.png: " not in said


def test_predict_py_takes_the_diameter_that_it_is_given(predicted, capsys):
    assert run_script(predict.main, "close-up.png", *FLAGS, "--diameter", 400) == 0
    assert run_script(predict.main, "close-up.png", *FLAGS, "--diameter", 108) == 0
    assert predicted == pytest.approx([0.5, 200 / 108])
    assert "guess" not in capsys.readouterr().out


def test_a_diameter_that_contradicts_the_border_gets_a_word_and_an_absurd_one_is_refused(predicted, capsys):
    for diameter, doubtful in ((100, False), (150, False), (60, True), (200, True)):
        assert run_script(predict.main, "eye.png", "close-up.png", *FLAGS, "--diameter", diameter) == 0
        doubts = {row["image"]: row["doubtful"] for row in read_csv(Path("results/predict/measures.csv"))}
        assert ("--diameter contradicts the border" in doubts["eye"]) is doubtful
        assert "--diameter" not in doubts["close-up"], "without a border nothing speaks against it"
        assert ("that shows; it decides all the same:\n  eye.png\n" in capsys.readouterr().err) is doubtful
    assert predicted[::2] == pytest.approx([2, 200 / 150, 200 / 60, 1])
    predicted.clear()
    for diameter in (20, 600):
        with pytest.raises(
            UserError,
            match=rf"eye\.png: --diameter {diameter}: .* shows 1\d\d pixels; give {DIAMETER_FLAG}, or",
        ):
            run_script(predict.main, "eye.png", *FLAGS, "--diameter", diameter)
    assert predicted == [], "it is refused before it takes time and memory"


def test_a_corner_of_the_border_says_nothing_against_a_larger_field_of_view():
    photograph = draw_eye(np.random.default_rng(0), 400, 400)[0][:200, :200]
    assert look_at(photograph, 380).contradiction == pytest.approx(1, abs=0.3)
    assert look_at(photograph, 700).contradiction < 1.5
    assert look_at(photograph, 100).contradiction > 1.5


def test_a_field_of_view_much_smaller_than_a_frame_without_a_border_is_refused():
    photograph = draw_eye(np.random.default_rng(0), 400, 400)[0][100:300, 100:300]
    assert look_at(photograph, 60).diameter == 60
    with pytest.raises(
        UserError, match="--diameter 45: the photograph is 200 pixels wide or high without a border"
    ):
        look_at(photograph, 45)


@pytest.mark.parametrize("diameter", ["0", "-3", "nan", "1e9"])
def test_an_impossible_diameter_is_refused(diameter, capsys):
    with pytest.raises(SystemExit):
        run_script(predict.main, "eye.png", f"--diameter={diameter}")
    assert "give 16 to 100000" in capsys.readouterr().err


def seen(share: float, diameter_from: str = "border") -> Photograph:
    """A photograph with a field of view of 1,000 pixels whose disc has this share of it."""
    pixels, fov = np.zeros((10, 10, 3), np.uint8), np.full((10, 10), 255, np.uint8)
    place = {} if np.isnan(share) else {"disc_x": 500.0, "disc_y": 500.0}
    known = landmarks(disc_diameter=1000 * share, disc_certainty=0.9, **place)
    return Photograph(pixels, fov, 1000.0, diameter_from, known)


def with_disc() -> UNet:
    """A network that was trained with 112 pixels per disc."""
    network = UNet(width=2, depth=1).eval()
    network.disc, network.diameter = 112, 112 / DISC_SHARE
    return network


@pytest.mark.parametrize(("share", "disc"), [(DISC_SHARE, 156), (0.22, 185), (0.13, 142), (0.45, 209)])
def test_where_the_border_shows_disc_and_field_of_view_count_alike(share, disc):
    assert plan_scale(seen(share), with_disc()) == Scale(pytest.approx(112 / disc, rel=0.01), "disc")


def test_a_speck_that_is_taken_for_a_disc_does_not_decide():
    assert plan_scale(seen(0.03), with_disc()).scale_from == "field", (
        "no vessels are found in a black photograph"
    )


def test_without_a_border_the_disc_counts_alone():
    found = plan_scale(seen(0.45, diameter_from="guess"), with_disc())
    assert found == Scale(pytest.approx(112 / 450), "disc")


def test_the_scale_says_what_it_is_from():
    network = UNet(width=2, depth=1).eval()
    assert plan_scale(seen(0.22), network).scale_from == "field", "a network of one camera knows no disc"
    network = with_disc()
    assert plan_scale(seen(0.22, diameter_from="given"), network).scale_from == "given"
    assert plan_scale(seen(float("nan")), network).scale_from == "field"
    assert plan_scale(seen(float("nan"), diameter_from="guess"), network).scale_from == "guess"


@pytest.mark.parametrize(
    ("share", "eyes", "doubt"),
    [
        (0.2, 9, ""),
        (0.31, 9, ""),
        (0.5, 9, "disc 2.5 times as wide as others of its camera"),
        (0.08, 9, "disc 0.4 times as wide as others of its camera"),
        (float("nan"), 9, "no disc, but in 9 of 10 of its camera"),
        (float("nan"), 8, ""),  # of another part of the retina, as those of two others
        (0.2, 0, ""),
        (0.38, 0, "disc 38% of the field of view"),
        (0.03, 0, "disc 3% of the field of view"),
        (float("nan"), 0, ""),
    ],
)
def test_a_disc_where_none_can_be_is_doubted_and_none_where_one_should_be(share, eyes, doubt):
    camera = Camera(200, 1000, eyes, 10) if eyes else None
    assert doubt_disc(seen(share), camera) == doubt
    cut = replace(seen(share), landmarks=landmarks(disc_x=5.0, disc_y=500.0))
    assert doubt_disc(cut, camera) == "", "the border cuts it: a place without a diameter"


def test_photographs_of_one_camera_have_one_scale_the_median_disc_counts():
    discs = (0.2, 0.21, 0.19, 0.22, 0.05)  # the last is no disc
    taken = [seen(share) for share in discs] + [seen(float("nan"))]
    cameras = cameras_of(map(sizes_of, taken))
    (camera,) = cameras.values()
    assert camera == Camera(200, 1000, 5, 6)
    (scale,) = {plan_scale(own, with_disc(), cameras) for own in taken}
    by_field = 112 / DISC_SHARE / 1000
    assert scale == Scale(pytest.approx(by_field ** (1 / 6) * (112 / 200) ** (5 / 6)), "disc", 5)
    given = seen(0.2, diameter_from="given")
    assert plan_scale(given, with_disc(), cameras).scale_from == "given"


@pytest.mark.parametrize(
    "taken",
    [
        [seen(0.2), seen(0.2)],  # two are too few
        [seen(0.08), seen(0.2), seen(0.4), seen(0.1)],  # of several cameras, or no discs
        [seen(0.2), seen(float("nan")), seen(float("nan")), seen(0.2)],
        [replace(seen(0.2), fov=np.full((n, n), 255, np.uint8)) for n in (10, 20, 30)],
        [replace(seen(0.2), diameter=diameter) for diameter in (500.0, 1000.0, 1500.0)],
    ],
)
def test_what_may_be_of_several_cameras_is_seen_one_by_one(taken):
    assert not cameras_of(map(sizes_of, taken))


def test_a_photograph_of_another_field_of_view_is_of_another_camera():
    cameras = cameras_of([sizes_of(seen(0.2))] * 3)
    assert camera_of_photograph(seen(0.1), cameras)
    assert camera_of_photograph(replace(seen(0.1), diameter=700.0), cameras) is None
    assert camera_of_photograph(replace(seen(0.1), fov=np.zeros((9, 9), np.uint8)), cameras) is None


def test_test_py_and_predict_py_know_the_camera_of_a_folder_alike(tmp_path, monkeypatch, factors):
    write_test_eyes(tmp_path, 20.0, (150,) * 4)

    def find(pixels: np.ndarray, fov: np.ndarray) -> Landmarks:
        diameter = 28 + float(pixels.sum() % 5)
        return landmarks(disc_x=75.0, disc_y=75.0, disc_diameter=diameter, disc_certainty=1.0)

    monkeypatch.setattr("anatomy.photograph.find_landmarks", find)
    weights = see_with_both(tmp_path)
    assert len(factors) == 8 and len(set(factors)) == 1
    alone = factors.pop()
    run_script(
        predict.main, tmp_path / "data" / "test" / "image" / "0.png", "--out", tmp_path / "one", *weights
    )
    assert factors[-1] != alone, "one photograph says nothing of its camera"
