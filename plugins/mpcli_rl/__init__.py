"""Chapter 10. Reinforcement learning: acting, and learning from what happens.

In reading order: bandit, value_iteration, policy_iteration, monte_carlo, td0, q_learning, sarsa, dyna, dqn, reinforce,
actor_critic.
"""
