"""From checked settings to processes elsewhere: what they are told, and who starts them, through NeMo-Run."""
