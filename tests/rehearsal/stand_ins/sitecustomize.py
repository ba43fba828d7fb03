"""Imported by every Python process that has this folder on PYTHONPATH: what the process is to believe of its machine.

REHEARSE_TE=1 brings Transformer Engine, REHEARSE_GPU=1 a GPU that answers, REHEARSE_WITHOUT=a,b hides packages.
"""

import os

if os.environ.get("REHEARSE_WITHOUT"):
    import hidden_packages

    hidden_packages.hide(os.environ["REHEARSE_WITHOUT"].split(","))
if os.environ.get("REHEARSE_GPU"):
    import answering_gpu

    answering_gpu.install()
if os.environ.get("REHEARSE_TE"):
    import transformer_engine_on_cpu

    transformer_engine_on_cpu.install()
