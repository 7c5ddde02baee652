"""Chapter 10. Reinforcement learning: acting, and learning from what happens.

In reading order: q_learning, dqn.
"""
