"""What the pages of reinforcement learning share: worlds, episodes, tables, networks of agents, curves."""
