"""Every default of every command, once: one YAML per command, and groups. Hydra finds them as `pkg://nemo_reasoning.conf`."""
