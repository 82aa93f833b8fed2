"""The settings of a server name the servables of a folder, and the commands use them."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfmeta.serving import server, write_settings


def make_servable(folder, version="1"):
    (folder / version).mkdir(parents=True)
    (folder / version / "saved_model.pb").write_bytes(b"")


def named_in(settings):
    text = settings.read_text(encoding="utf-8")
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {c.name: c.base_path for c in config.model_config_list.config}


def test_all_servables_of_a_folder_are_named_and_nothing_else(tmp_path):
    for name in ("one", "two"):
        make_servable(tmp_path / name)
    (tmp_path / "logs" / "7").mkdir(parents=True)
    (tmp_path / "logs" / "7" / "a.txt").write_text("a")
    make_servable(tmp_path / "not_a_version", "latest")
    write_settings(tmp_path)
    assert named_in(tmp_path / "models.config") == {
        name: str(tmp_path / name) for name in ("one", "two")
    }
    (tmp_path / "two").rename(tmp_path / "three")
    write_settings(tmp_path)
    assert set(named_in(tmp_path / "models.config")) == {"one", "three"}
    assert f"--model_config_file={tmp_path}/models.config" in server.command(tmp_path)


def test_batching_parameters_that_were_edited_stay(tmp_path):
    make_servable(tmp_path / "one")
    write_settings(tmp_path)
    batching = tmp_path / "batching_parameters.txt"
    assert "max_batch_size { value: 32 }" in batching.read_text()
    batching.write_text("max_batch_size { value: 8 }")
    write_settings(tmp_path)
    assert batching.read_text() == "max_batch_size { value: 8 }"


def test_a_folder_without_servables_is_refused_and_stays_empty(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="must be a folder that holds the folders of servable"):
            write_settings(folder)
    assert list(tmp_path.iterdir()) == []
