from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vervet.config import NETWORKS, Augment, FrontEnd, Recipe, Stage, Vit, load_recipe, merge, recipe_name
from vervet.files import read_json

RECIPES = Path(__file__).parents[1] / "recipes"


def written(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def test_the_papers_recipe_is_the_default():
    assert load_recipe(RECIPES / "paper.yaml") == Recipe()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    assert load_recipe(path).stages


def test_what_a_recipe_does_not_name_keeps_its_default(tmp_path):
    recipe = load_recipe(written(tmp_path, "student: {lr: 3e-4}\n"))
    assert recipe.student == Stage(lr=3e-4, alpha=10.0)
    assert load_recipe(written(tmp_path, "")) == Recipe()


def test_overrides_win(tmp_path):
    path = written(tmp_path, "seed: 3\nstudent: {epochs: 7}\n")
    recipe = load_recipe(path, ["--seed=4", "--student.alpha=1", "--stages=student", "--augment.versions=[original]"])
    assert (recipe.seed, recipe.student.epochs, recipe.student.alpha) == (4, 7, 1.0)
    assert recipe.stages == ("student",)
    assert recipe.augment.versions == ("original",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "my.yaml: unknown setting 'sed'; the nearest known is 'seed'"),
        ("student: {lrate: 1}", "my.yaml: student: unknown setting 'lrate'; the nearest known is 'lr"),
        ("seed: 1.5", "my.yaml: seed: expected int, not 1.5"),
        ("seed: true", "my.yaml: seed: expected int, not True"),
        ("student: {lr: fast}", "my.yaml: student: lr: expected float, not 'fast'"),
        ("student: {lr: .nan}", "my.yaml: student: lr: expected float, not nan"),
        ("student: {lr: .inf}", "my.yaml: student: lr: expected float, not inf"),
        ("student: {lr: nan}", "my.yaml: student: lr: expected float, not 'nan'"),
        (f"student: {{alpha: 1{'0' * 400}}}", "my.yaml: student: alpha: expected float, not 1000"),
        ("augment: {speeds: [0.9, -.inf]}", "my.yaml: augment: speeds: expected float, not -inf"),
        ("seed: -1", "my.yaml: seed must not be negative"),
        ("seed: 2026-02-31", "my.yaml: day"),
        ("? [a]\n: b", "my.yaml: the key in line 1 is a list or a mapping; give a name"),
        ("seed: 1\n? {a: 1}\n: b", "my.yaml: the key in line 2 is a list or a mapping; give a name"),
        ("student: {lr: 0}", "my.yaml: student: lr and lr_gamma must be positive"),
        ("{validate: false, student: {keep: best}}", "student.keep is best, but without validate nothing chooses"),
        ("student: 3", "my.yaml: student: expected a mapping of settings, not 3"),
        ("precision: half", "my.yaml: precision: 'half' is not one of float32, bfloat16"),
        ("stages: [student, teacher]", "in this order, each once"),
        ("stages: []", "in this order, each once"),
        ("front_end: {width: 64}", r"teacher_network.image is \(128, 128\), but the front end makes \(128, 64\)"),
        ("front_end: {win_length: 0}", "sizes must be positive"),
        ("student_network: {reduce: [0]}", "sizes must be positive"),
        ("teacher_network: {stem: [-1]}", "sizes must be positive"),
        ("augment: {shift_s: -1}", "noise_sigma and shift_s must not be negative"),
        ("augment: {shift_s: 10}", "shift_s leaves nothing of a clip"),
        ("front_end: {duration_s: 1.0e-6}", "0.016 samples, shorter than win_length"),
        ("teacher: {alpha: 1}", "teacher.alpha is 0"),
        ("augment: {versions: [noise]}", "versions must begin with 'original'"),
        ("augment: {versions: [original, echo]}", "unknown version 'echo'"),
        ("student_network: {patch: [128]}", "expected 2 values"),
        ("student_network: {patch: [100, 1]}", "patch height 100 does not divide image height 128"),
        ("student_network: {embed_dim: 128}", "same embed_dim"),
        ("- 1", "a recipe is a mapping of settings, not a list"),
        ("a: [", "not YAML"),
    ],
)
def test_faulty_recipes_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(written(tmp_path, text))


def test_an_overridden_recipe_has_another_name():
    path = Path("recipes/paper.yaml")
    assert recipe_name(path, ["--seed=3", "--precision=bfloat16", "--stages=teacher"]) == "paper"
    assert recipe_name(path, ["--student.lr=1", "--seed=3", "--augment.speeds=[1.1]"]) == (
        "paper --augment.speeds=[1.1] --student.lr=1"
    )
    assert recipe_name(path, ["--student.lr-step=1", "--student.lr_step=2"]) == "paper --student.lr_step=2"
    assert load_recipe(path, ["--student.lr-step=1", "--student.lr_step=2"]).student.lr_step == 2


def test_a_recipe_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes("seed: 1  # für später".encode("latin-1"))
    with pytest.raises(ValueError, match=r"my\.yaml: not text in UTF-8 \("):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--student.lr=[", r"^--student\.lr=\[: not YAML: "),
        ("--student.lr=a: b: c", r"^--student\.lr=a: b: c: not YAML: "),
        ("--student.lr=inf", "student: lr: expected float, not 'inf'"),
        ("--student.lr=-.inf", "student: lr: expected float, not -inf"),
        ("--student={lr: 1, lr: 2}", "^--student={lr: 1, lr: 2}: key 'lr' stands twice"),
        ("--seed=-1", "seed must not be negative"),
    ],
)
def test_faulty_values_of_overrides_are_refused(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(written(tmp_path, ""), [override])


def test_settings_may_be_taken_over_from_another_part(tmp_path):
    text = "teacher: &teacher {epochs: 3, lr: 1.0e-3}\nstudent: &student {<<: *teacher, epochs: 5}\n"
    recipe = load_recipe(written(tmp_path, text + "matching: {<<: *student, batch_size: 8}\n"))
    assert recipe.student == Stage(epochs=5, lr=1e-3, alpha=10.0)
    assert recipe.matching == Stage(epochs=5, lr=1e-3, alpha=1.0, cross_entropy=False, batch_size=8)
    with pytest.raises(ValueError, match=r"(?s)my\.yaml: not YAML: .*expected a mapping or list of mappings"):
        load_recipe(written(tmp_path, "student: {<<: 3}"))
    shared = written(tmp_path, "teacher: &both {epochs: 3, lr: 1.0e-3}\nstudent: *both\n")
    recipe = load_recipe(shared, ["--student.lr=5e-5", "--student.epochs=4"])
    assert (recipe.teacher.lr, recipe.teacher.epochs) == (1e-3, 3)
    assert (recipe.student.lr, recipe.student.epochs) == (5e-5, 4)


@pytest.mark.parametrize("setting", ["stretch=1.5", "warp=50", "time_mask=128", "band_mask=128", "time_mask=1000"])
def test_what_leaves_nothing_of_an_image_is_refused(tmp_path, setting):
    with pytest.raises(ValueError, match=rf"online.*{setting.partition('=')[0]}"):
        load_recipe(written(tmp_path, ""), [f"--augment.online.{setting}"])


@pytest.mark.parametrize("override", ["seed=1", "--seed", "--seed.x=1"])
def test_faulty_overrides_are_refused(tmp_path, override):
    with pytest.raises(ValueError, match="seed"):
        load_recipe(written(tmp_path, "seed: 1"), [override])


@pytest.mark.parametrize("name", ["vervet", "vervet-small"])
def test_the_recipes_for_unheard_voices_share_a_network(name):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert replace(recipe.student_network, dropout=0.0, functionals=True) == NETWORKS["vervet"]
    assert recipe.stages == ("student", "functionals")
    other = load_recipe(RECIPES / "vervet.yaml")
    stage = replace(recipe.student, epochs=other.student.epochs, average=other.student.average)
    assert replace(recipe, student=stage, functionals=other.functionals) == other


def test_settings_survive_as_plain_data():
    for network in NETWORKS.values():
        assert merge(Vit(), asdict(network), "card") == network
    assert merge(FrontEnd(), asdict(FrontEnd(top_db=60.0)), "card") == FrontEnd(top_db=60.0)


def test_front_end_sizes():
    assert (FrontEnd().samples, FrontEnd().frames) == (64_000, 1001)
    assert Vit().grid == (1, 128)
    assert Vit(patch=(16, 16)).grid == (8, 8)
    with pytest.raises(ValueError, match="win_length must not exceed"):
        FrontEnd(win_length=2048)
    with pytest.raises(ValueError, match="versions must not repeat"):
        Augment(versions=("original", "noise", "noise"))


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\nstudent: {lr: 1.0e-3}\nseed: 2\n")
    with pytest.raises(ValueError, match=r"twice\.yaml: key 'seed' stands twice, also in line 3"):
        load_recipe(path)


def test_a_recipe_that_comes_with_the_package_goes_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "finetune").mkdir()  # a folder of that name is no recipe
    recipe = load_recipe(Path("finetune"), ["--student.head_l2=0", "--student.epochs=3"])
    assert (recipe.stages, recipe.student.epochs, recipe.student.alpha) == (("student", "functionals"), 3, 0.0)
    with pytest.raises(ValueError, match=r"--student\.epochs=3: changes nothing while the heads alone are fitted"):
        load_recipe(Path("finetune"), ["--student.epochs=3"])
    assert load_recipe(Path("finetune"), ["--student.label_smoothing=0"]).student.label_smoothing == 0
    with pytest.raises(FileNotFoundError):
        load_recipe(Path("fintune"))


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"recipe":')
    with pytest.raises(ValueError, match=r"run\.json: damaged, no JSON"):
        read_json(tmp_path / "run.json")
    (tmp_path / "run.json").write_text('{"a": "ä"}', encoding="utf-8")
    assert read_json(tmp_path / "run.json") == {"a": "ä"}
