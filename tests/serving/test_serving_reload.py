"""Another set of models is served without a restart."""

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import (
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.config import ModelConfig
from serving.config_poller import ConfigPoller
from serving.models import ModelStore
from serving.status import StatusError

CODE = grpc.StatusCode


@pytest.fixture
def reload(server, models_directory):
    """Reloads the server with a change of its configuration; puts it back after."""
    config = text_format.Parse(
        (models_directory / "models.pbtxt").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )

    def call(change=lambda models: None):
        request = model_management_pb2.ReloadConfigRequest()
        request.config.CopyFrom(config)
        change(request.config.model_config_list.config)
        return stub.HandleReloadConfigRequest(request, timeout=60)

    with grpc.insecure_channel(server.grpc) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        try:
            yield call
        finally:
            call()


def refusal(call, *arguments):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code(), caught.value.details()


def predict(server, tools, name):
    return tools.http(f"{server.url}/{name}:predict", {"inputs": [0]})


def test_a_reload_replaces_the_whole_set(server, tools, reload):
    assert predict(server, tools, "swap") == (200, {"outputs": [1.0]})
    reply = reload(lambda models: models.pop(2))
    assert reply.status.error_code == 0
    tools.wait_until(lambda: predict(server, tools, "swap")[0] == 404)
    assert predict(server, tools, "half") == (200, {"outputs": [0.0]})
    reload()
    assert predict(server, tools, "swap") == (200, {"outputs": [1.0]})


def test_a_reload_moves_labels(server, tools, reload):
    def canary(models):
        models[0].version_labels["canary"] = 1

    path = "half/labels/canary"
    assert predict(server, tools, path)[0] == 400
    reload(canary)
    assert predict(server, tools, path) == (200, {"outputs": [0.0]})
    reload()
    assert predict(server, tools, path)[0] == 400


def test_a_label_moves_only_to_a_version_that_is_there(server, tools, reload):
    def move(models):
        models[0].version_labels["stable"] = 7

    assert refusal(reload, move) == (
        CODE.FAILED_PRECONDITION,
        "Request to assign label to version 7 of model half, which is not currently "
        "available for inference",
    )
    assert predict(server, tools, "half/labels/stable") == (200, {"outputs": [0.0]})


def test_a_reload_that_names_a_model_twice_is_refused(server, tools, reload):
    code, text = refusal(reload, lambda models: models.append(models[0]))
    assert code == CODE.INVALID_ARGUMENT
    assert "Illegal to list model half multiple times in config list" in text
    assert predict(server, tools, "half")[0] == 200


def test_a_reload_without_a_list_of_models_is_refused(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_management_pb2.ReloadConfigRequest()
        assert refusal(stub.HandleReloadConfigRequest, request) == (
            CODE.INVALID_ARGUMENT,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported",
        )


# Inside this process


@pytest.fixture
def store(written):
    store = ModelStore([ModelConfig("a", written.products.parent)])
    store.poll()
    yield store
    store.stop()


def acquire(store, name, label):
    with store.lease(model_pb2.ModelSpec(name=name, version_label=label)) as version:
        return version.number


def test_labels_need_a_loaded_version_unless_the_flag_is_set(store, written):
    path = written.products.parent
    new = ModelConfig("b", path, labels={"stable": 1})
    with pytest.raises(StatusError, match="version 1 of model b, which is not curr"):
        store.reload([new])
    # Nothing has changed.
    assert store.available() == {"a": [1]}
    store.reload([ModelConfig("b", path)])
    store.reload([new])
    assert acquire(store, "b", "stable") == 1
    assert store.available() == {"a": [], "b": [1]}


def test_a_new_model_without_a_version_is_told(store, written, tmp_path):
    path = written.products.parent
    (tmp_path / "1").mkdir()
    with pytest.raises(StatusError, match="1 model") as caught:
        store.reload([ModelConfig("a", path), ModelConfig("c", tmp_path)])
    assert caught.value.code == "UNKNOWN"
    assert "name: c version: 1 due to error: NOT_FOUND" in caught.value.message
    (tmp_path / "1").rmdir()
    with pytest.raises(StatusError, match="d has no version in"):
        store.reload([ModelConfig("a", path), ModelConfig("d", tmp_path)])
    assert store.available()["a"] == [1]


def test_the_last_answers_of_a_model_taken_away_are_given(store):
    with store.lease(model_pb2.ModelSpec(name="a")) as version:
        store.reload([])
        assert version.state == "UNLOADING"
    assert version.state == "END"
    assert store.available() == {"a": []}
    assert [version.state for version in store.statuses("a")] == ["END"]


def test_the_configuration_file_is_followed_while_the_server_runs(
    store, written, tmp_path, capsys, tools
):
    file = tmp_path / "models.pbtxt"
    text = (
        f'model_config_list {{ config {{ name: "NAME" model_platform: "tensorflow" '
        f'base_path: "{written.products.parent}" }} }}'
    )

    def put(content):
        new = tmp_path / "new.pbtxt"
        new.write_text(content)
        new.replace(file)  # whole: half of it would be told as another problem

    put(text.replace("NAME", "b"))
    poller = ConfigPoller(store, file, 0.01)
    poller.start()
    try:
        tools.wait_until(lambda: store.available() == {"a": [], "b": [1]})
        put("no configuration")
        problem = f"not reloaded: {file}: is not a ModelServerConfig"
        errors = []
        tools.wait_until(
            lambda: errors.append(capsys.readouterr().err) or problem in "".join(errors)
        )
        assert store.available() == {"a": [], "b": [1]}
        put(text.replace("NAME", "c"))
        tools.wait_until(lambda: store.available() == {"a": [], "b": [], "c": [1]})
    finally:
        poller.stop()
    assert "".join(errors).count("not reloaded") == 1
