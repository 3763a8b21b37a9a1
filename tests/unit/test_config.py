"""Each option is a flag, a variable and a key, in that order of rank, and a wrong one is said in a sentence."""

from __future__ import annotations

import json
import typing
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from hubbub.auth.options import JwtKey
from hubbub.config import OPTIONS, Config, Option, load, misspelt
from hubbub.core.addresses import TrustedProxies
from hubbub.core.outbox import Overflow
from hubbub.core.permissions import RoleOptions
from hubbub.core.rates import OFF, Rate
from hubbub.core.rooms import RoomOptions
from hubbub.errors import ConfigError
from hubbub.types import Action

# Every option of a room, none at its default.
ROOM = RoomOptions(
    history_size=1, history_age=2.5, capacity=3, presence_events=True, overflow=Overflow.DROP_OLDEST, volatile=False
)


def bare(option: Option) -> Any:
    """The option's type without its bounds."""
    kind = option.type
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_origin(kind) or kind


def is_any_text(option: Option) -> bool:
    """Whether no text is wrong."""
    return bare(option) is str and not any(note.pattern for note in option.type.__metadata__)


def samples(option: Option) -> list[Any]:
    """Three values that the option may have, none of them its default; of a bool there is one, and of some words."""
    kind = bare(option)
    if kind is bool:
        return [not option.default] * 3
    if kind in (int, float):
        return [option.default + kind(step) for step in (1, 2, 3)]
    if kind is Rate:
        return [Rate.parse("3/s burst 7"), Rate.parse("100/h window"), Rate(5)]
    if kind is TrustedProxies:
        return [TrustedProxies(found) for found in (["10.0.0.0/8"], ["::1", "192.168.0.0/16"], ["127.0.0.1"])]
    if kind is dict and Rate in typing.get_args(option.type.__origin__):
        return [{"typing": Rate(2)}, {"history": Rate.parse("5/m leaky"), "chat": OFF}, {"a b": Rate(1)}]
    if option.name == "roles":
        return [
            {"player": RoleOptions(rooms={"game:*": (Action.JOIN,)})},
            {"*": RoleOptions(users=("support",))},
            {"staff": RoleOptions(broadcast=True)},
        ]
    if kind is dict:
        return [{"lobby": RoomOptions(capacity=1)}, {"game:*": RoomOptions(overflow=Overflow.LATEST)}, {"*": ROOM}]
    if kind is tuple:
        if option.name == "origins":
            return [("https://a.example",), ("https://a.example", "http://b.example:8080"), ("any",)]
        return [(JwtKey(kid=kid, algorithms=("HS256",), secret="s" * 32),) for kid in "abc"]
    if issubclass(kind, Enum):
        return [*(others := [value for value in kind if value != option.default]), *others, *others][:3]
    return ["debug", "warning", "error"]


def text(value: Any) -> str:
    """A value as it is written on a command line or in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return msgspec.json.encode(value, enc_hook=str).decode() if isinstance(value, dict | tuple) else str(value)


def found(config: Config, option: Option) -> Any:
    """What the option is set to, in every part of the configuration that has it."""
    parts = [
        config.server,
        config.tls,
        config.transport,
        config.compression,
        config.hub,
        config.hub.limits,
        config.hub.transfers,
        config.hub.rates,
        config.hub.outbox,
        config.hub.origin,
        config.store,
        config.engine,
        config.redis,
        config.nats,
        config.auth,
        config.history,
    ]
    values = [getattr(part, option.name) for part in parts if option.name in part.__struct_fields__]

    assert values
    assert all(value == values[0] for value in values), "parts that share an option disagree"
    return values[0]


def a_file(folder: Path, values: dict[str, Any]) -> Path:
    file = folder / "hubbub.toml"
    lines = [f"{name} = {toml(msgspec.to_builtins(value, enc_hook=str))}" for name, value in values.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def toml(value: Any) -> str:
    """A value on one line, its tables too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def by_name(option: Option) -> str:
    return option.name


each_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


class TestRank:
    """Flags come before variables, variables before the file, the file before the default."""

    @each_option
    def test_each_option_can_be_left_alone(self, option: Option) -> None:
        assert found(load({}, {}), option) == option.default

    @each_option
    def test_each_option_in_order_of_rank(self, option: Option, tmp_path: Path) -> None:
        in_file, in_variable, in_flag = samples(option)
        file = a_file(tmp_path, {option.name: in_file})
        environment = {option.variable: text(in_variable)}
        flags = {option.name: text(in_flag)}

        assert found(load({}, {}, file), option) == in_file
        assert found(load({}, environment, file), option) == in_variable
        assert found(load({}, environment), option) == in_variable
        assert found(load(flags, environment, file), option) == in_flag
        assert found(load(flags, {}), option) == in_flag

    @pytest.mark.parametrize("option", [option for option in OPTIONS.values() if bare(option) is bool], ids=by_name)
    def test_a_switch_can_be_switched_off_again(self, option: Option, tmp_path: Path) -> None:
        file = a_file(tmp_path, {option.name: True})

        assert found(load({}, {option.variable: "false"}, file), option) is False
        assert found(load({option.name: False}, {option.variable: "true"}, file), option) is False

    def test_a_flag_may_be_a_value_already(self) -> None:
        """Who starts a server from Python writes numbers as numbers."""
        assert load({"port": 9000, "dev": True}, {}).server.port == 9000

    def test_one_option_changes_no_other(self) -> None:
        config = load({"port": "9000"}, {})
        plain = load({}, {})

        assert config.server.port == 9000
        assert (config.transport, config.hub, config.history) == (plain.transport, plain.hub, plain.history)


class TestSpelling:
    """One name, three spellings, and a description for `--help`."""

    @each_option
    def test_the_name_says_how_it_is_spelled(self, option: Option) -> None:
        assert option.flag == "--" + option.name.replace("_", "-")
        assert option.variable == "HUBBUB_" + option.name.upper()

    @each_option
    def test_every_option_is_described(self, option: Option) -> None:
        """In a line that reads well after the flag: no capital, no full stop."""
        assert option.description
        assert "\n" not in option.description
        assert not option.description[0].isupper()
        assert not option.description.endswith(".")

    @each_option
    def test_every_default_is_one_that_could_be_set(self, option: Option) -> None:
        assert msgspec.convert(option.default, option.type, strict=False) == option.default


# Options that take any text as far as the configuration can tell; and one that says more about what is wrong.
class TestErrors:
    """A wrong option is one sentence that names it and says what it may be."""

    @pytest.mark.parametrize(
        "option",
        [
            option
            for option in OPTIONS.values()
            if not is_any_text(option) and option.name not in ("origins", "node_name", "nats_prefix")
        ],
        ids=by_name,
    )
    def test_a_value_that_it_cannot_have(self, option: Option, tmp_path: Path) -> None:
        """Named as its user spelled it, with what was said and what the option is."""
        for flags, environment, file, spelled in (
            ({option.name: "nonsense"}, {}, None, option.flag),
            ({}, {option.variable: "nonsense"}, None, option.variable),
            ({}, {}, a_file(tmp_path, {option.name: "nonsense"}), f"{option.name} in "),
        ):
            with pytest.raises(ConfigError) as caught:
                load(flags, environment, file)
            said = str(caught.value)

            assert said.startswith(spelled)
            assert ("'nonsense'" in said) is not option.secret
            assert option.description in said
            assert "\n" not in said

    def test_an_origin_that_no_browser_sends(self) -> None:
        """Named as its user spelled it; what can be wrong is in `unit/core/test_origins.py`."""
        for flags, environment in (({"origins": "a.example"}, {}), ({}, {"HUBBUB_ORIGINS": '["a.example"]'})):
            spelled = "--origins" if flags else "HUBBUB_ORIGINS"
            with pytest.raises(ConfigError, match=f"^{spelled}: the origin 'a.example' has no scheme: write https://"):
                load(flags, environment)

    def test_a_switch_is_true_or_false(self) -> None:
        with pytest.raises(ConfigError, match=r"^HUBBUB_DEV cannot be 'yes': write true or false "):
            load({}, {"HUBBUB_DEV": "yes"})

    @pytest.mark.parametrize(
        ("name", "value", "bound"),
        [("port", "65536", "65535"), ("port", "-1", "0"), ("session_queue", "0", "1"), ("write_deadline", "0", "0")],
    )
    def test_a_bound_is_said(self, name: str, value: str, bound: str) -> None:
        with pytest.raises(ConfigError, match=rf"cannot be '{value}': .* {bound}\b"):
            load({name: value}, {})

    def test_a_key_that_does_not_exist_is_guessed(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no option 'prot': did you mean port\?"):
            load({}, {}, a_file(tmp_path, {"prot": 9000}))

    def test_a_flags_spelling_in_the_file_is_guessed(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"did you mean history_size\?"):
            load({}, {}, a_file(tmp_path, {"history-size": 10}))

    def test_a_key_like_no_other_leads_to_the_list(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no option 'zzz': `hubbub serve --help` lists them"):
            load({}, {}, a_file(tmp_path, {"zzz": 1}))

    def test_a_flag_that_does_not_exist_is_an_error_of_the_same_kind(self) -> None:
        with pytest.raises(ConfigError, match=r"no option 'prot': did you mean port\?"):
            load({"prot": "9000"}, {})

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^cannot read the configuration .*hubbub\.toml: No such file"):
            load({}, {}, tmp_path / "hubbub.toml")

    @pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2\n", b"\xff"], ids=["half", "twice", "bytes"])
    def test_a_file_that_is_no_toml(self, content: bytes, tmp_path: Path) -> None:
        file = tmp_path / "hubbub.toml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"hubbub\.toml is not TOML: "):
            load({}, {}, file)

    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            ({"ping_interval": "60"}, "silence_limit must be longer than ping_interval"),
            ({"silence_limit": "5"}, "silence_limit must be longer than ping_interval"),
            ({"pong_timeout": "25"}, "envelope_ping_interval must be longer than pong_timeout"),
            ({"message_size": "100000000"}, "unfinished_size must be at least message_size"),
        ],
        ids=["one", "the other", "a pair", "sizes"],
    )
    def test_two_that_contradict_each_other(self, flags: dict[str, str], named: str) -> None:
        """Also where only one of them was set, and the other is a default."""
        with pytest.raises(ConfigError, match=named):
            load(flags, {})


class TestSurroundings:
    """What else is in an environment does no harm."""

    def test_what_kubernetes_says_about_a_service_is_not_ours(self) -> None:
        """Beside a Service named hubbub every container has HUBBUB_PORT=tcp://…"""
        environment = {
            "HUBBUB_PORT": "tcp://10.0.0.1:8000",
            "HUBBUB_SERVICE_HOST": "10.0.0.1",
            "HUBBUB_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        }

        assert load({}, environment).server.port == OPTIONS["port"].default

    def test_a_real_port_in_the_environment_counts(self) -> None:
        assert load({}, {"HUBBUB_PORT": "9000"}).server.port == 9000

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("HUBBUB_PROT", "HUBBUB_PORT"),
            ("HUBBUB_LOGLEVEL", "HUBBUB_LOG_LEVEL"),
            ("HUBBUB_PING_INTERVALL", "HUBBUB_PING_INTERVAL"),
            ("HUBBUB_CONFIGS", "HUBBUB_CONFIG"),
        ],
    )
    def test_a_misspelt_variable_is_guessed(self, name: str, meant: str) -> None:
        assert misspelt({name: "1", "PATH": "/bin"}) == {name: meant}

    @pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
    def test_no_option_is_taken_for_a_misspelt_one(self, option: Option) -> None:
        assert misspelt({option.variable: "1"}) == {}

    @pytest.mark.parametrize(
        "service", ["HUBBUB", "HUBBUB_HOST", "HUBBUB_MESSAGE_SIZE", "HUBBUB_PORTS", "HUBBUB_DEV_2"]
    )
    def test_what_kubernetes_sets_is_not_taken_for_a_misspelt_option(self, service: str) -> None:
        """Whatever the Service is called: the forms of docker's links, and two of its own."""
        url = "tcp://10.0.0.1:8000"
        environment = {
            f"{service}_SERVICE_HOST": "10.0.0.1",
            f"{service}_SERVICE_PORT": "8000",
            f"{service}_SERVICE_PORT_WS": "8000",
            f"{service}_PORT": url,
            f"{service}_PORT_8000_TCP": url,
            f"{service}_PORT_8000_TCP_PROTO": "tcp",
            f"{service}_PORT_8000_TCP_PORT": "8000",
            f"{service}_PORT_8000_TCP_ADDR": "10.0.0.1",
            f"{service}_PORT_53_UDP": "udp://10.0.0.1:53",
        }

        assert misspelt(environment) == {}

    @pytest.mark.parametrize("name", ["HUBBUB_VERSION", "HUBBUB_TOKEN", "HUBBUB_CONFIG", "HUBBUB_IMAGE", "HUBBUBPORT"])
    def test_what_is_like_no_option_is_somebody_elses(self, name: str) -> None:
        assert misspelt({name: "1"}) == {}

    def test_variables_of_others_are_ignored(self) -> None:
        assert load({}, {"PORT": "9000", "OTHER_HUBBUB_PORT": "1"}) == load({}, {})


class TestDevelopment:
    """`--dev` makes the presence of every room visible, unless something else was said."""

    def test_it_tells_everyone_of_everyone(self) -> None:
        assert load({"dev": True}, {}).hub.presence_events is True
        assert load({}, {"HUBBUB_DEV": "true"}).hub.presence_events is True
        assert load({}, {}).hub.presence_events is False

    def test_what_was_said_counts(self) -> None:
        assert load({"dev": True, "presence_events": False}, {}).hub.presence_events is False
        assert load({"dev": True}, {"HUBBUB_PRESENCE_EVENTS": "false"}).hub.presence_events is False


class TestRooms:
    """Options by pattern are tables in the file, and the same as JSON elsewhere."""

    def test_tables_in_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "hubbub.toml"
        file.write_text(
            "port = 9000\n[rooms.lobby]\npresence_events = true\n"
            '[rooms."game:*"]\ncapacity = 4\noverflow = "latest"\nhistory_age = 60\n',
            encoding="utf-8",
        )

        assert load({}, {}, file).hub.rooms == {
            "lobby": RoomOptions(presence_events=True),
            "game:*": RoomOptions(capacity=4, overflow=Overflow.LATEST, history_age=60),
        }

    def test_json_elsewhere(self) -> None:
        """Whoever comes first in rank says all of it: tables of two places are not mixed."""
        environment = {"HUBBUB_ROOMS": '{"lobby": {"capacity": 2}}'}

        assert load({}, environment).hub.rooms == {"lobby": RoomOptions(capacity=2)}
        assert load({"rooms": '{"game:*": {"volatile": true}}'}, environment).hub.rooms == {
            "game:*": RoomOptions(volatile=True)
        }

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("{", "--rooms cannot be '{': .*truncated"),
            ('{"lobby": 3}', "--rooms cannot be .*expected `object`, got `int`"),
            (
                '{"lobby": {"capasity": 3}}',
                r"--rooms: rooms 'lobby' have no option 'capasity': did you mean capacity\?",
            ),
            ('{"lobby": {"capacity": 0}}', "--rooms: capacity of rooms 'lobby' cannot be 0"),
        ],
    )
    def test_what_is_wrong_is_said(self, value: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            load({"rooms": value}, {})


def test_the_library_and_the_server_have_the_same_defaults() -> None:
    """Who runs a hub without a configuration gets what `hubbub serve` without options gives."""
    assert load({}, {}) == Config()
