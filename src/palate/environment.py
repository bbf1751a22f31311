"""Variables of the environment that libraries read once, when they are imported."""

import os

VARIABLES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "5000",
    "OPENBLAS_NUM_THREADS": "1",  # numpy's, for statistics: small matrices, beside people who vote; torch has its own
}


def prepare() -> None:
    """Keep the libraries' chatter, telemetry and update checks away from the terminal and the network.

    Threads that wait for each other spin for a moment and then sleep. Two threads of PPO on the built-in model, seconds an
    answer on a free machine and beside two busy processes: 0.096 and 0.13 without spinning, 0.060 and 0.16 with 5,000
    turns, 0.058 and more than 0.25 with OpenMP's own habit (one measurement each). What the user has set stays.
    """
    for variable, value in VARIABLES.items():
        os.environ.setdefault(variable, value)
