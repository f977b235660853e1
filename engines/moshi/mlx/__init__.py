"""The models as MLX programs: for Apple silicon, and for a CPU where MLX has one."""
