"""The PPO core: rollouts, objectives, the backbone its roles share, and the learner."""
