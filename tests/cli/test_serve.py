"""`tfmeta export` and `tfmeta serving`: from a run, a preset or a task to a server."""

import shlex

import pytest

from tfmeta import serving

CHATTER = ("oneDNN", "cuda", "absl", "CUDA", "WARNING", "cpu_feature_guard", "retracing")


@pytest.fixture(scope="module")
def exported(work, waves):
    """A folder with the servable of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfmeta.threads.configure_threads", lambda: None)
        from tfmeta.cli import main

        output = work / "exported" / "waves"
        assert main(["export", str(waves), "--output", str(output)]) == 0
    return output.parent


@pytest.mark.large
def test_a_run_of_images_is_exported_and_checked(succeeds, pictures, tmp_path):
    out = succeeds("export", pictures, "--output", tmp_path / "servables" / "pictures")
    assert f"Published {tmp_path / 'servables' / 'pictures' / '1'}" in out
    assert f"tfmeta serving run {tmp_path / 'servables'}" in out
    out = succeeds("serving", "check", tmp_path / "servables" / "pictures")
    assert "operations: " in out
    assert "adapt_and_predict_images: 2 requests answered" in out


def test_a_run_of_numbers_is_exported_and_checked(succeeds, exported):
    out = succeeds("serving", "check", exported / "waves")
    assert "operations: " in out
    assert "images" not in out


def commands_in(error):
    """The command that an error proposes."""
    return shlex.split(error.split("`")[1])


@pytest.mark.large
def test_a_refused_learner_is_exported_by_the_command_that_the_error_names(
    tfmeta, succeeds, fails, transductive, tmp_path
):
    output = tmp_path / "servables" / "my pictures"
    command = ["export", transductive, "--output", output]
    fails(command, "transductive", "--allow-transductive")
    assert not output.parent.exists()
    _, _, err = tfmeta(*command)
    program, *mended = commands_in(err)
    assert (program, mended[-2:]) == ("tfmeta", ["--batch-norm", "support"])
    succeeds(*mended)
    succeeds("serving", "check", output)


@pytest.mark.large
def test_a_refused_task_is_learned_again_by_the_command_that_the_error_names(
    tfmeta, succeeds, fails, transductive, halves, tmp_path
):
    task, output = tmp_path / "task", tmp_path / "servables" / "halves"
    assert tfmeta("adapt", transductive, "--support", halves, "--output", task)[0] == 0
    export = ["export", task, "--output", output]
    fails([*export, "--batch-norm", "support"], "to `tfmeta adapt`")
    fails(export, "transductive", "--allow-transductive")
    _, _, err = tfmeta(*export)
    program, *mended = commands_in(err)
    assert (program, mended[0]) == ("tfmeta", "adapt")
    succeeds(*mended)
    succeeds(*export)
    assert output.is_dir()


@pytest.mark.large
def test_a_transductive_learner_can_be_exported_as_it_is(succeeds, fails, transductive, tmp_path):
    output = tmp_path / "servables" / "pictures"
    succeeds("export", transductive, "--output", output, "--allow-transductive")
    succeeds("serving", "check", output, "--allow-transductive")
    code_and_error = "depend"
    fails(["serving", "check", output], code_and_error)


@pytest.mark.large
def test_the_script_exports_a_preset_without_chatter(script, tmp_path):
    output = tmp_path / "servables" / "waves"
    result = script("export", "maml_sinusoid", "--output", output)
    assert result.returncode == 0, result.stderr
    assert not any(part in result.stderr for part in CHATTER)


# === Servers ===


def test_settings_of_a_server_are_written_and_its_commands_shown(succeeds, exported):
    out = succeeds("serving", "configure", exported)
    assert 'name: "waves"' in (exported / "models.config").read_text()
    assert (exported / "batching_parameters.txt").is_file()
    assert "tensorflow_model_server --port=8500 --rest_api_port=8501" in out
    assert f"--model_config_file={exported}/models.config" in out
    assert f"docker run --rm -p 8500:8500 -p 8501:8501 -v {exported}:{exported}:ro" in out


def test_serving_runs_the_servables_of_a_folder(succeeds, fails, exported, tmp_path, monkeypatch):
    import shutil

    servables, programs = tmp_path / "servables", tmp_path / "bin"
    # Renamed since it was exported.
    shutil.copytree(exported / "waves", servables / "oceans")
    programs.mkdir()
    server = programs / "tensorflow_model_server"
    server.write_text("")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    started = []
    monkeypatch.setattr("os.execv", lambda program, arguments: started.append(arguments))
    succeeds("serving", "run", servables)
    assert started[0][0] == str(server)
    assert f"--model_config_file={servables}/models.config" in started[0]
    assert 'name: "oceans"' in (servables / "models.config").read_text()
    for command in ("run", "configure"):
        for empty in (tmp_path, servables / "oceans", tmp_path / "none"):
            fails(
                ["serving", command, empty],
                "must be a folder that holds the folders of servables",
            )


def test_serving_without_a_server_says_how_to_get_it(fails, exported, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    fails(["serving", "run", exported], "tensorflow/serving")


# === Servables of presets ===


def test_the_servable_of_a_preset_is_shown(succeeds):
    out = succeeds("serving", "path", "maml_sinusoid")
    findings = serving.check(out.strip())
    assert findings


def test_a_preset_without_a_servable_says_how_to_export_it(fails, waves):
    fails(["serving", "path", waves], f"tfmeta export {waves}")
    fails(["serving", "path", "maml_sinusoids"], "did you mean 'maml_sinusoid'?")
