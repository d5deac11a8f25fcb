import gymnasium
import numpy as np
import pytest

from envs.errors import InvalidEnvironmentError
from envs.physics import checked_ranges, drawn
from envs.registry import make

SUPPORTED = {"mass_kg": (0.5, 2.0), "length_m": (0.1, 1.0)}


def zero(size: int) -> np.ndarray:
    return np.zeros(size, np.float32)


def test_ranges_come_back_sorted_so_that_their_order_changes_no_draw():
    given = {"mass_kg": (0.5, 1.0), "length_m": [0.2, 0.2]}
    checked = checked_ranges("x", given, SUPPORTED)
    assert list(checked.items()) == [("length_m", (0.2, 0.2)), ("mass_kg", (0.5, 1.0))]


def test_draws_are_uniform_within_the_bounds():
    generator = np.random.default_rng(0)
    values = [drawn({"a": (2.0, 4.0)}, generator)["a"] for _ in range(2000)]
    assert 2.0 <= min(values) < 2.01
    assert 3.99 < max(values) <= 4.0
    # The standard error of the mean is 0.013.
    assert np.mean(values) == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        (
            {"mas_kg": (1, 1)},
            r"^x has no parameter 'mas_kg' to randomise\. Did you mean 'mass_kg'\? "
            r"Supported: mass_kg, length_m$",
        ),
        ({"mass_kg": (0.4, 1.0)}, r"got \[0.4, 1\], expected low <= high within \[0.5, 2\]"),
        ({"mass_kg": (1.0, 2.1)}, "within"),
        ({"mass_kg": (1.5, 1.0)}, "low <= high"),
        ({"mass_kg": (float("nan"), 1.0)}, "within"),
        ({"mass_kg": 1.0}, r"got 1.0, expected two numbers \[low, high\]"),
        ({"mass_kg": (1.0,)}, "expected two numbers"),
        ({"mass_kg": (1.0, 1.5, 2.0)}, "expected two numbers"),
        ({"mass_kg": ("a", "b")}, "expected two numbers"),
        ({"mass_kg": None}, "expected two numbers"),
    ],
)
def test_bad_ranges_are_refused_in_one_line(ranges, problem):
    with pytest.raises(InvalidEnvironmentError, match=problem):
        checked_ranges("x", ranges, SUPPORTED)


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_environments_without_known_physics_are_refused(name):
    with pytest.raises(InvalidEnvironmentError, match="has no physics parameters to randomise"):
        make(name, randomise={"mass": (1.0, 2.0)})


@pytest.mark.parametrize(("name", "package"), [("lunar", "Box2D"), ("hopper", "mujoco")])
def test_an_unknown_parameter_lists_the_supported_ones(name, package):
    pytest.importorskip(package)
    with pytest.raises(InvalidEnvironmentError, match=r"'gravty' .*Did you mean 'gravity'\?"):
        make(name, randomise={"gravty": (-10.0, -9.0)})


def test_a_task_draws_its_parameters_anew_for_every_episode():
    env = gymnasium.make("mgrl/Pendulum-v0", randomise={"mass_kg": (0.5, 2.0)}, length_m=2.0)
    task = env.unwrapped
    env.reset(seed=0)
    masses = []
    for _ in range(50):
        env.reset()
        masses.append(task.parameters.mass_kg)
        assert task.parameters.length_m == 2.0
    assert len(set(masses)) == 50
    assert 0.5 <= min(masses) < 0.8
    assert 1.7 < max(masses) <= 2.0
    task.randomise({})
    task.reset()
    assert task.parameters.mass_kg == 1.0


def test_randomised_mass_changes_the_motion_by_the_drawn_factor():
    weightless = {"gravity_m_s2": 0.0, "friction_nms": 0.0}
    env = make("pendulum", weightless, {"mass_kg": (0.5, 2.0)})
    for seed in range(5):
        before = env.reset(seed)[2]
        after = env.step(np.ones(1, np.float32)).obs[2]
        mass_kg = env._env.unwrapped.parameters.mass_kg
        # torque / inertia * time = 4 / (m 1^2) * 0.05
        assert after - before == pytest.approx(0.2 / mass_kg, rel=1e-4)


def test_mujoco_factors_scale_the_arrays_of_the_unchanged_model():
    pytest.importorskip("mujoco")
    plain = make("hopper")._env.unwrapped.model
    env = make("hopper", randomise={"mass": (0.5, 2.0), "friction": (3.0, 3.0)})
    factors = []
    for seed in range(4):
        env.reset(seed)
        model = env._env.unwrapped.model
        factor = model.body_mass[1] / plain.body_mass[1]
        factors.append(factor)
        np.testing.assert_allclose(model.body_mass, plain.body_mass * factor)
        np.testing.assert_allclose(model.body_inertia, plain.body_inertia * factor)
        np.testing.assert_allclose(model.geom_friction, plain.geom_friction * 3.0)
        np.testing.assert_array_equal(model.dof_damping, plain.dof_damping)
        np.testing.assert_array_equal(model.opt.gravity, plain.opt.gravity)
        # What MuJoCo derives from the masses must follow them.
        np.testing.assert_allclose(model.body_subtreemass, plain.body_subtreemass * factor)
    assert len(set(factors)) == 4
    assert all(0.5 <= factor <= 2.0 for factor in factors)


def test_mujoco_without_gravity_does_not_fall():
    pytest.importorskip("mujoco")
    env = make("hopper", randomise={"gravity": (0.0, 0.0), "damping": (2.0, 2.0)})
    start = env.reset(0)
    later = [env.step(zero(3)).obs for _ in range(10)][-1]
    assert later[0] == pytest.approx(start[0], abs=0.01)
    assert env._env.unwrapped.model.dof_damping[-1] == 2.0


def test_factors_of_one_are_the_plain_mujoco_task():
    pytest.importorskip("mujoco")
    ones = dict.fromkeys(("mass", "friction", "damping", "gravity"), (1.0, 1.0))
    plain, scaled = make("cheetah"), make("cheetah", randomise=ones)
    # A degenerate range still consumes draws: align the streams after the reset of the physics.
    scaled.reset(0)
    plain.reset(0)
    generator = plain._env.unwrapped.np_random
    scaled.set_random_state(plain.get_random_state())
    scaled_generator = scaled._env.unwrapped.np_random
    for _ in ones:
        generator.uniform(1.0, 1.0)
    np.testing.assert_array_equal(plain.reset(), scaled.reset())
    assert generator.bit_generator.state == scaled_generator.bit_generator.state
    for _ in range(50):
        action = np.full(6, 0.5, np.float32)
        np.testing.assert_allclose(
            plain.step(action).obs, scaled.step(action).obs, rtol=1e-4, atol=1e-4
        )


def test_the_lander_falls_with_the_drawn_gravity():
    pytest.importorskip("Box2D")
    env = make("lunar", randomise={"gravity": (-12.0, -1.0)})
    pulls = []
    for seed in range(3):
        env.reset(seed)
        lander = env._env.unwrapped
        pulls.append(lander.world.gravity.y)
        start = lander.lander.linearVelocity.y
        env.step(zero(2))
        # The legs' springs push the body a little.
        fall_m_s2 = (lander.lander.linearVelocity.y - start) * 50.0
        assert fall_m_s2 == pytest.approx(pulls[-1], abs=1.0)
    assert all(-12.0 <= pull <= -1.0 for pull in pulls)
    assert len(set(pulls)) == 3


def test_a_seed_starts_one_stream_from_which_physics_and_then_the_start_are_drawn():
    pytest.importorskip("Box2D")
    randomise = {"gravity": (-12.0, -1.0)}
    seeded, continued = make("lunar", randomise=randomise), make("lunar", randomise=randomise)
    continued.set_random_state(np.random.default_rng(5).bit_generator.state)
    np.testing.assert_array_equal(seeded.reset(5), continued.reset())
    assert seeded.get_random_state() == continued.get_random_state()


def test_randomised_wind_blows_and_brings_no_turbulence_with_it():
    pytest.importorskip("Box2D")
    env = make("lunar", randomise={"wind_power": (10.0, 15.0)})
    env.reset(0)
    lander = env._env.unwrapped
    assert lander.enable_wind is True
    assert 10.0 <= lander.wind_power <= 15.0
    assert lander.turbulence_power == 0.0
    kept = make("lunar", {"enable_wind": True}, {"wind_power": (1.0, 1.0)})
    kept.reset(0)
    assert kept._env.unwrapped.turbulence_power == 1.5
