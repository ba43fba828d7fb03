"""What others wrote cannot leave its folder, run anything, or take all memory; test_trust.py has the pickles."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.weight_files import base_files
from nemo_reasoning.models.weights import check_weights


@pytest.mark.parametrize(
    "name", ["../stolen.safetensors", "/etc/stolen.safetensors", "a/b.safetensors", "..", "", 7, None]
)
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: object) -> None:
    base = tmp_path / "base"
    base.mkdir()
    save_file({"model.norm.weight": torch.ones(2)}, tmp_path / "stolen.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(ModelSourceError, match=r"index.json that names .*do not use this model"):
        check_weights(base, name="mine")
    with pytest.raises(ModelSourceError, match=r"index.json that names .*do not use this model"):
        base_files(base)
