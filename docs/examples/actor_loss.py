"""Train a plain PyTorch actor with a learned objective as its loss.

    python docs/examples/actor_loss.py runs/demo/objective.safetensors --episodes 40

Everything but the actor's loss is ordinary: torch modules, a Gymnasium environment, a critic
trained by temporal differences. Swap in your own loop; the objective only wants windows of actions,
rewards and values.
"""

import argparse
import copy
import random

import gymnasium
import numpy as np
import torch
from torch import nn

import envs  # noqa: F401 - registers mgrl/Pendulum-v0
from mgrl_cli import LearnedObjective

DISCOUNT = 0.99
TARGET_RATE = 0.01
NOISE = 0.2


def network(width_in: int, width_out: int) -> nn.Sequential:
    """Return a small multilayer perceptron."""
    return nn.Sequential(nn.Linear(width_in, 64), nn.ReLU(), nn.Linear(64, width_out))


class ActorCritic(nn.Module):
    """A deterministic actor in [-1, 1] and its critic."""

    def __init__(self, obs_size: int, act_size: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(network(obs_size, act_size), nn.Tanh())
        self.critic = network(obs_size + act_size, 1)

    def value(self, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Return Q(s, a)."""
        return self.critic(torch.cat([obs, action], dim=-1)).squeeze(-1)


def play(env: gymnasium.Env, agent: ActorCritic) -> tuple[dict[str, torch.Tensor], float]:
    """Play one episode with noise; return its steps and its return."""
    obs, _ = env.reset()
    observations, actions, rewards = [obs], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        with torch.no_grad():
            action = agent.actor(torch.as_tensor(obs)).numpy()
        action = np.clip(action + NOISE * np.random.randn(*action.shape), -1, 1)
        obs, reward, terminated, truncated, _ = env.step(action.astype(np.float32))
        observations.append(obs)
        actions.append(action)
        rewards.append(reward)
    steps = {
        "obs": torch.as_tensor(np.array(observations), dtype=torch.float32),
        "action": torch.as_tensor(np.array(actions), dtype=torch.float32),
        "reward": torch.as_tensor(rewards, dtype=torch.float32),
        "terminated": torch.zeros(len(rewards), dtype=torch.bool),
    }
    steps["terminated"][-1] = terminated  # a time limit is not a terminal state
    return steps, float(sum(rewards))


def windows(
    episodes: list[dict[str, torch.Tensor]], batch: int, length: int
) -> dict[str, torch.Tensor]:
    """Cut random windows of equal length out of the episodes."""
    drawn = []
    for episode in random.choices(episodes, k=batch):
        start = random.randrange(max(1, len(episode["reward"]) - length + 1))
        drawn.append({key: value[start : start + length] for key, value in episode.items()})
        drawn[-1]["next_obs"] = episode["obs"][start + 1 : start + 1 + length]
    return {key: torch.stack([window[key] for window in drawn]) for key in drawn[0]}


def main() -> None:
    """Train and print the return of every tenth episode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objective", help="an objective.safetensors")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--updates", type=int, default=100, help="updates per episode")
    arguments = parser.parse_args()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)

    objective = LearnedObjective.load(arguments.objective)
    env = gymnasium.make("mgrl/Pendulum-v0")
    env.reset(seed=0)
    agent = ActorCritic(env.observation_space.shape[0], env.action_space.shape[0])
    target = copy.deepcopy(agent)
    actor_adam = torch.optim.Adam(agent.actor.parameters(), lr=3e-4)
    critic_adam = torch.optim.Adam(agent.critic.parameters(), lr=1e-3)
    episodes: list[dict[str, torch.Tensor]] = []

    for number in range(1, arguments.episodes + 1):
        episode, episode_return = play(env, agent)
        episodes.append(episode)
        for _ in range(arguments.updates):
            batch = windows(episodes, 16, objective.metadata.window_steps)
            continues = (~batch["terminated"]).float()
            with torch.no_grad():
                next_q = target.value(batch["next_obs"], target.actor(batch["next_obs"]))
                backup = batch["reward"] + DISCOUNT * continues * next_q
            obs = batch["obs"]
            critic_loss = (agent.value(obs, batch["action"]) - backup).square().mean()
            critic_adam.zero_grad()
            critic_loss.backward()
            critic_adam.step()

            policy_action = agent.actor(obs)
            actor_loss = objective(  # the only line that is not ordinary
                batch["action"],
                policy_action,
                batch["reward"],
                agent.value(obs, policy_action),
                agent.value(batch["next_obs"], agent.actor(batch["next_obs"])),
                batch["terminated"],
                torch.ones_like(batch["terminated"]),
            )
            actor_adam.zero_grad()
            actor_loss.backward()
            nn.utils.clip_grad_norm_(agent.actor.parameters(), 1.0)
            actor_adam.step()
            with torch.no_grad():
                pairs = zip(target.parameters(), agent.parameters(), strict=True)
                for slow, fast in pairs:
                    slow.lerp_(fast, TARGET_RATE)
        if number % 10 == 0 or number == arguments.episodes:
            print(f"episode {number}  return {episode_return:.1f}")


if __name__ == "__main__":
    main()
