"""QLoRA: base weights held in four bits under a LoRA adapter."""
