"""Chapter 10. Reinforcement learning: acting, and learning from what happens.

markov: chance without choice
bandit: one state, many arms
value_iteration: planning by the optimality equation
policy_iteration: planning by evaluation and improvement
monte_carlo: learning from whole episodes
td0: learning from one step
q_learning: off-policy control
sarsa: on-policy control
dyna: learning and planning together
dqn: Q-learning with a network
reinforce: the policy gradient
actor_critic: a policy and its critic
"""
