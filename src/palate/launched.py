"""What `accelerate launch` or `torchrun` asked for, from the variables they set. No torch; who does what is in parallel.py."""

import os


def processes() -> int:
    """How many processes were started together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding() -> str | None:
    """`FSDP` or `DeepSpeed` where the launcher's settings cut the model into parts; None: each process has a whole copy."""
    for name in ("FSDP", "DeepSpeed"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "false").lower() == "true":
            return name
    return None
