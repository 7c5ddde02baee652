"""Environments: refused by name with a reason, resumed exactly, evaluated rightly."""

import itertools
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from mpcli.errors import Failed, InputError
from mpcli_rl.kit import playing, stepping, worlds

TABULAR = ("discrete",), ("discrete",)
VECTOR = ("vector",), ("discrete",)


class Corridor(gym.Env):
    """Walk right from 5 to 9 (the end, reward 1); counts states from 5 and actions from -1."""

    observation_space = gym.spaces.Discrete(5, start=5)
    action_space = gym.spaces.Discrete(3, start=-1)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 5
        return self.place, {}

    def step(self, action):
        assert action in (-1, 0, 1)
        self.place = max(5, self.place + int(action))
        return self.place, float(self.place == 9), self.place == 9, False, {}

    def render(self):
        return np.full((20, 40, 3), 20 * self.place, np.uint8)


class Restless(gym.Env):
    """Draws from a counter of its own, which no seed sets."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Discrete(2)
    counter = itertools.count()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32([next(self.counter)]), {}

    def step(self, action):
        return np.float32([next(self.counter)]), 0.0, False, False, {}


class Precise(Corridor):
    """The corridor, its place as a vector: of float64, as physics engines give theirs, or of bytes, as memories do."""

    observation_space = gym.spaces.Box(0, 255, (1,), np.float64)
    action_space = gym.spaces.Discrete(3)

    def reset(self, **options):
        return np.array([super().reset(**options)[0]], self.observation_space.dtype), {}

    def step(self, action):
        place, *rest = super().step(int(action) - 1)
        return np.array([place], self.observation_space.dtype), *rest


class Bytes(Precise):
    observation_space = gym.spaces.Box(0, 255, (1,), np.uint8)


class Picture(Restless):
    observation_space = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    kinds = {f"{kind.__name__}-v0": kind for kind in (Corridor, Restless, Picture, Precise, Bytes)}
    for name, kind in kinds.items():
        gym.register(name, entry_point=kind, max_episode_steps=100 if issubclass(kind, Corridor) else None)
    yield
    for name in kinds:
        del gym.registry[name]


@pytest.mark.parametrize(
    ("name", "needs", "says"),
    [
        ("CartPol-v1", VECTOR, r"no such environment; did you mean CartPole-v1"),
        ("cliffwalking-v7", TABULAR, r"did you mean CliffWalking-v1"),
        ("zzzzzz-v0", TABULAR, r"no such environment; Gymnasium has"),
        ("Nowhere/CartPole-v1", VECTOR, r"no such environment; did you mean"),
        ("no_such_package:CartPole-v1", VECTOR, r"cannot be made \(.*no_such_package"),
        ("Taxi-v3", TABULAR, r"Taxi-v4"),
        ("", TABULAR, r"--env"),
        ("CartPole-v1", TABULAR, r"observations are a vector of 4 numbers; this page needs discrete observations"),
        ("FrozenLake-v1", VECTOR, r"observations are discrete, Discrete\(16\); this page needs vector observations"),
        ("Pendulum-v1", VECTOR, r"actions are a vector of 1 numbers; this page needs discrete actions"),
        ("Picture-v0", VECTOR, r"an image of 4x4x3 numbers|a image of 4x4x3"),
        ('FrozenLake-v1(map_name="9x9")', TABULAR, r"cannot be made \(KeyError: '9x9'\)"),
        ("FrozenLake-v1(slippery=False)", TABULAR, r"cannot be made \(TypeError.*slippery"),
        ("FrozenLake-v1(8)", TABULAR, r"arguments cannot be read \(every argument needs its name\)"),
        ("FrozenLake-v1(map_name=open('x'))", TABULAR, r"arguments cannot be read"),
        ("FrozenLake-v1(map_name=)", TABULAR, r"arguments cannot be read"),
    ],
)
def test_refused_with_a_reason(name, needs, says):
    with pytest.raises(InputError, match=says) as caught:
        worlds.make(name, *needs)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_arguments_and_step_limits():
    assert worlds.make('FrozenLake-v1(map_name="8x8", is_slippery=False)', *TABULAR).observation_space.n == 64
    assert worlds.make("FrozenLake-v1", *TABULAR).spec.max_episode_steps == 100
    assert worlds.make("CliffWalking-v1", *TABULAR).spec.max_episode_steps == worlds.LIMIT
    assert worlds.make("CliffWalking-v1(max_episode_steps=7)", *TABULAR).spec.max_episode_steps == 7


def test_discrete_spaces_of_any_make_are_numbered():
    env = worlds.make("Corridor-v0", *TABULAR)
    assert (worlds.count_states(env), env.reset()[0]) == ((5, 3), 0)
    assert [env.step(2)[0] for _ in range(4)] == [1, 2, 3, 4]
    blackjack = worlds.make("Blackjack-v1", *TABULAR)
    assert worlds.count_states(blackjack) == (32 * 11 * 2, 2)
    hand, dealer, ace = blackjack.unwrapped.reset(seed=3)[0]
    assert blackjack.reset(seed=3)[0] == (hand * 11 + dealer) * 2 + ace


def test_numbering_is_one_to_one():
    space = gym.spaces.Tuple(
        (gym.spaces.MultiDiscrete([2, 3]), gym.spaces.Discrete(4, start=-2), gym.spaces.MultiBinary(2))
    )
    numbering = worlds._Numbering(space)
    values = [numbering.value(index) for index in range(numbering.count)]
    assert numbering.count == 2 * 3 * 4 * 4
    assert all(space.contains(value) for value in values)
    assert [numbering.number(value) for value in values] == list(range(numbering.count))


def test_too_many_states_for_a_table():
    class Vast(Corridor):
        observation_space = gym.spaces.MultiDiscrete([1000, 1000, 1000])

    gym.register("Vast-v0", entry_point=Vast)
    try:
        with pytest.raises(InputError, match="1000000000 states, too many"):
            worlds.count_states(worlds.make("Vast-v0", *TABULAR))
    finally:
        del gym.registry["Vast-v0"]


def test_a_step_limit_does_not_end_the_world():
    cut = stepping.Episodes(worlds.make("Corridor-v0(max_episode_steps=3)", *TABULAR), seed=0)
    assert [cut.step(2) for _ in range(3)] == [(1, 0.0, False), (2, 0.0, False), (3, 0.0, False)]
    assert cut.observation == 0 and cut.finished == [(3, 0.0, 3)]
    whole = stepping.Episodes(worlds.make("Corridor-v0", *TABULAR), seed=0)
    assert [whole.step(2) for _ in range(4)][-1] == (4, 1.0, True)
    assert whole.observation == 0 and whole.finished == [(4, 1.0, 4)]


def test_the_latest_return_is_no_best_of_those_that_end_together():
    copies = stepping.Copies(partial(worlds.make, "Corridor-v0(max_episode_steps=4)", *TABULAR), 2, seed=0)
    assert copies.latest == {}
    for _ in range(4):
        copies.step(np.array([2, 1]))  # one walks to the end, one stands still
    assert [value for _, value, _ in copies.finished] == [0, 1] and copies.latest == {"train_return": 0.5}
    for _ in range(3):
        copies.step(np.array([1, 2]))
    assert copies.latest == {"train_return": 0.5}
    copies.step(np.array([1, 1]))
    assert copies.latest == {"train_return": 0}


def test_one_environment_has_no_return_before_an_episode_ends():
    walk = stepping.Episodes(worlds.make("Corridor-v0", *TABULAR), seed=0)
    seen = [walk.latest, *(walk.step(2) and walk.latest for _ in range(5))]
    assert seen == [{}, {}, {}, {}, {"train_return": 1.0}, {"train_return": 1.0}]


def test_copies_report_the_last_state_of_an_episode():
    copies = stepping.Copies(partial(worlds.make, "CartPole-v1", *VECTOR), 3, seed=1)
    terminated, history = np.zeros(3, bool), []
    while not terminated.any():
        before = copies.observation.copy()
        history.append(before)
        reached, reward, terminated = copies.step(np.ones(3, int))
        assert (reward == 1).all()
    ended = terminated.argmax()
    assert abs(reached[ended, 2]) > 0.2095  # the angle at which the pole has fallen
    assert np.abs(copies.observation[ended]).max() <= 0.05  # the first state of the next episode
    np.testing.assert_array_equal(copies.observation[~terminated], reached[~terminated])
    assert not np.array_equal(before[ended], copies.observation[ended])
    assert copies.steps == 3 * len(history) and copies.episodes.tolist() == terminated.astype(int).tolist()
    assert copies.finished[0][0] % 3 == 0 and copies.finished[0][1] == copies.finished[0][2]


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("CartPole-v1", VECTOR),
        ("Acrobot-v1(max_episode_steps=120)", VECTOR),
        ("MountainCar-v0", VECTOR),
        ("Pendulum-v1", (("vector",), ("vector",))),
        ("FrozenLake-v1", TABULAR),
        ("CliffWalkingSlippery-v1(max_episode_steps=90)", TABULAR),
        ("Taxi-v4(is_rainy=True, fickle_passenger=True)", TABULAR),
        ("Blackjack-v1", TABULAR),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 137])
def test_resumed_environment_goes_on_bit_for_bit(name, needs, before, tmp_path):
    make = partial(worlds.make, name, *needs)
    space = make().action_space
    space.seed(0)
    actions = [np.array([space.sample() for _ in range(2)]) for _ in range(before + 300)]
    whole = stepping.Copies(make, 2, seed=5)
    for action in actions[:before]:
        whole.step(action)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    resumed = stepping.Copies(make, 2, seed=5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for action in actions[before:]:
        for one, other in zip(whole.step(action), resumed.step(action), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(whole.observation, resumed.observation)
    assert whole.finished == resumed.finished and len(whole.finished) > 0


def test_an_environment_without_a_seed_is_found_out():
    env = stepping.Episodes(worlds.make("Restless-v0", *VECTOR), seed=0)
    for _ in range(4):
        env.step(0)
    resumed = stepping.Episodes(worlds.make("Restless-v0", *VECTOR), seed=0)
    with pytest.warns(UserWarning, match="Restless-v0 is not determined by its seed"):
        resumed.load_state_dict(env.state_dict())
    assert (resumed.steps, resumed.episode) == (4, 1)


def test_a_state_of_other_environments_is_refused():
    cart, lake = (
        stepping.Copies(partial(worlds.make, name, *needs), 2, 0)
        for name, needs in (("CartPole-v1", VECTOR), ("MountainCar-v0", VECTOR))
    )
    with pytest.raises(ValueError, match="observations of shape"):
        lake.load_state_dict(cart.state_dict())
    with pytest.raises(ValueError, match="2 copies"):
        stepping.Copies(partial(worlds.make, "CartPole-v1", *VECTOR), 3, 0).load_state_dict(cart.state_dict())


def test_episodes_of_different_purposes_and_copies_differ():
    seeds = {stepping.episode_seed(0, *key) for key in itertools.product(range(4), range(3), range(50))}
    assert len(seeds) == 4 * 3 * 50


# Acting for a result, and for a picture.


def test_evaluation_plays_every_episode_once():
    along_the_cliff = np.full(48, 1)
    along_the_cliff[36], along_the_cliff[35] = 0, 2
    make = partial(worlds.make, "CliffWalking-v1", *TABULAR)
    assert playing.evaluate(make, lambda s: along_the_cliff[s], 3, seed=0).tolist() == [-13] * 3
    make = partial(worlds.make, "CartPole-v1", *VECTOR)
    few = playing.evaluate(make, lambda s: (s[:, 2] > 0).astype(int), 5, seed=0)
    many = playing.evaluate(make, lambda s: (s[:, 2] > 0).astype(int), 40, seed=0)
    np.testing.assert_array_equal(few, many[:5])
    assert len(set(many)) > 5 and 20 < many.mean() < 70
    others = playing.evaluate(make, lambda s: (s[:, 2] > 0).astype(int), 40, seed=0, purpose=stepping.SELECTION)
    assert (many != others).any()


@pytest.mark.parametrize(("name", "needs"), [("CartPole-v1", VECTOR), ("FrozenLake-v1", TABULAR)])
def test_recording_needs_no_display(name, needs, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    frames, fps = playing.record(partial(worlds.make, name, *needs, render=True), lambda s: np.ones(len(s), int), 0)
    assert frames.ndim == 4 and frames.shape[1] == 3 and fps > 0
    assert frames.min() >= 0 and frames.max() <= 1 and frames.std() > 0.05
    assert (frames[0] != frames[-1]).any()


@pytest.mark.parametrize("name", ["Precise-v0", "Bytes-v0"])
def test_a_policy_is_asked_with_observations_as_it_learned_from(name):
    """float32, wherever it is asked: a layer multiplies with nothing else."""
    make = partial(worlds.make, name, *VECTOR)
    asked = [stepping.Copies(make, 1, seed=0).observation.dtype]

    def right(s):
        asked.append(s.dtype)
        return np.full(len(s), 2)

    assert playing.evaluate(make, right, 2, seed=0).tolist() == [1, 1]
    playing.walk(make, right, seed=0)
    playing.record(partial(make, render=True), right, seed=0)
    assert len(asked) == 13 and set(asked) == {np.dtype(np.float32)}


def test_long_recordings_are_thinned():
    make = partial(worlds.make, "Corridor-v0", *TABULAR, render=True)
    frames, fps = playing.record(make, lambda s: np.ones(len(s), int), 0, most=20, width=20)
    assert frames.shape[0] <= 22 and frames.shape[1:] == (3, 10, 20) and fps == pytest.approx(10 / 8)


def test_what_cannot_be_drawn_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="Restless-v0"):
            playing.record(partial(worlds.make, "Restless-v0", *VECTOR, render=True), lambda s: np.ones(len(s), int), 0)


# What an environment says, held against what it does.


class Faulty(gym.Env):
    """Ten steps of an observation of 0.5 and a reward of 1; then `fault` says what it does instead."""

    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, fault, after=10):
        self.fault, self.after = fault, after

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = 0
        if self.fault == "reset raises":
            raise OSError("no such\ndevice")
        observation = np.full(1 if self.fault == "one number" else 3, 0.5, np.float32)
        return observation if self.fault == "reset without info" else (observation, {})

    def step(self, action):
        self.taken += 1
        answer = [np.full(3, 0.5, np.float32), 1.0, False, False, {}]
        if self.taken <= self.after:
            return tuple(answer)
        if self.fault == "raises":
            raise RuntimeError("lost contact\nline two")
        if self.fault == "exits":
            raise SystemExit(3)
        at, value = {
            "shape": (0, np.zeros((1, 3), np.float32)),
            "not a number": (0, np.full(3, np.nan, np.float32)),
            "words": (0, np.array(["a", "b", "c"])),
            "reward of shape (1,)": (1, np.ones(1)),
            "no reward": (1, None),
            "endless reward": (1, np.inf),
            "double": (0, np.full(3, 0.5)),
            "beyond": (0, np.full(3, 7, np.float32)),
            "array of no dimensions": (1, np.array(1)),
        }.get(self.fault, (4, {}))
        answer[at] = value
        return tuple(answer[:3] + answer[4:]) if self.fault == "four" else tuple(answer)


class Uncertain(Corridor):
    def step(self, action):
        _, *rest = super().step(action)
        return 10, *rest  # one more than there are


class Shouting(Faulty):
    """Declares bytes, hands back numbers in [0, 1]."""

    observation_space = gym.spaces.Box(0, 255, (3,), np.uint8)


class Whole(Corridor):
    """Its one action is a whole number, and refuses any other."""

    observation_space = gym.spaces.Box(0, 255, (1,), np.int64)
    action_space = gym.spaces.Box(0, 4, (1,), np.int64)

    def reset(self, **options):
        return np.array([super().reset(**options)[0]]), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.array([int(action[0])]), float(action[0]), False, False, {}


class Stacked(Restless):
    """Four frames of 6 x 8 pixels, the newest brighter."""

    observation_space = gym.spaces.Box(0, 255, (4, 6, 8), np.uint8)

    def reset(self, *, seed=None, options=None):
        return np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((4, 6, 8), np.uint8), {}


@pytest.fixture(scope="module", autouse=True)
def _faulty():
    kinds = {f"{kind.__name__}-v0": kind for kind in (Faulty, Uncertain, Shouting, Whole, Stacked)}
    for name, kind in kinds.items():
        gym.register(name, entry_point=kind)
    yield
    for name in kinds:
        del gym.registry[name]


def twenty(name, needs=VECTOR):
    copies = stepping.Copies(partial(worlds.make, name, *needs), 1, seed=0)
    for _ in range(20):
        copies.step(np.zeros((1, *copies.action_space.shape), int))
    return copies


@pytest.mark.parametrize("after", [0, 10])
@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("one number", InputError, r"observation of its reset is of shape \(1,\), but its space says \(3,\)"),
        ("reset without info", InputError, r"its reset should return \(observation, info\)"),
        ("reset raises", Failed, "its reset raised OSError: no such$"),
        ("raises", Failed, "its step raised RuntimeError: lost contact$"),
        ("exits", Failed, "its step raised SystemExit: 3"),
        ("shape", InputError, r"observation of its step is of shape \(1, 3\), but its space says \(3,\)"),
        ("not a number", InputError, "should be finite, not array"),
        ("words", InputError, "holds <U1, but its space says float32"),
        ("reward of shape (1,)", InputError, r"reward of its step should be a number, not array\(\[1.\]\)"),
        ("no reward", InputError, "reward of its step should be a number, not None"),
        ("endless reward", InputError, "reward of its step should be finite, not inf"),
    ],
)
def test_a_fault_of_an_environment_is_one_sentence_with_its_name(fault, kind, says, after):
    name = f'Faulty-v0(fault="{fault}", after={after})'
    with pytest.raises(kind, match=says) as caught:
        twenty(name)
    assert str(caught.value).startswith(f"--env {name}: ") and "\n" not in str(caught.value)


def test_an_environment_of_the_old_interface_is_told_what_gymnasium_says():
    with pytest.raises(InputError, match=r"Faulty-v0.*old step API"):
        twenty('Faulty-v0(fault="four", after=0)')
    with pytest.raises(Failed, match=r"Faulty-v0.*its step raised ValueError: not enough values"):
        twenty('Faulty-v0(fault="four")')


@pytest.mark.parametrize("fault", ["double", "beyond", "array of no dimensions"])
def test_what_means_the_same_is_taken(fault):
    copies = twenty(f'Faulty-v0(fault="{fault}", after=0)')
    assert copies.observation.dtype == np.float32 and copies.steps == 20


def test_observations_beside_their_space_are_refused():
    with pytest.raises(InputError, match=r"Shouting-v0\(fault=\"\"\): the observation of its reset holds float32, but"):
        twenty('Shouting-v0(fault="")')
    with pytest.raises(InputError, match="Uncertain-v0: the observation of its step should be one of 5 to 9"):
        twenty("Uncertain-v0", TABULAR)


def test_whole_number_actions_get_whole_numbers():
    copies = stepping.Copies(partial(worlds.make, "Whole-v0", ("vector",), ("vector",)), 1, seed=0)
    reached, reward, _ = copies.step(np.array([[2.7]], np.float32))
    assert reached.tolist() == [[3.0]] and reward.tolist() == [3.0]


def test_stacked_frames_arrive_as_channels_last():
    copies = stepping.Copies(partial(worlds.make, "Stacked-v0", ("image",), ("discrete",)), 2, seed=0)
    assert copies.observation.shape == (2, 6, 8, 4) and copies.observation[1, 5, 7].tolist() == [0, 1, 2, 3]
    assert worlds.make("Picture-v0", ("image",), ("discrete",)).observation_space.shape == (4, 4, 3)


def test_an_unknown_namespace_is_told_in_gymnasiums_words():
    with pytest.raises(InputError, match=r"--env ALE/Pong-v5: .*installed the proper package for ALE"):
        worlds.make("ALE/Pong-v5", ("image",), ("discrete",))
