from __future__ import annotations

import sys
from importlib.metadata import distributions
from pathlib import Path
from uuid import UUID

import pytest
from attrs import field, frozen

from memory_core import (
    ConfigurationError,
    Episode,
    Index,
    PluginError,
    PluginRegistry,
    Record,
    Reference,
    StorageFactory,
    hookimpl,
    new_id,
    open_storage,
)
from memory_core.inmemory import InMemoryStorage
from memory_core.plugins import install_command, load_class
from memory_core.storage import SPI_VERSION
from tests.unit.installed import Installed

BACKEND = """
    from memory_core import StorageFactory, hookimpl

    @hookimpl
    def memory_storage_factories():
        return {{"{scheme}": StorageFactory(
            target="{module}:Nothing", config="memory_core.inmemory:InMemoryConfig", summary="none", spi=2,
        )}}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    known = set(sys.modules)
    yield Installed(tmp_path, monkeypatch)
    for name in set(sys.modules) - known:
        if name.startswith("acme"):
            del sys.modules[name]


def backend(scheme: str, module: str = "nowhere") -> str:
    return BACKEND.format(scheme=scheme, module=module)


def info(registry: PluginRegistry, name: str):
    return next(item for item in registry.plugins() if item.name == name)


@frozen(kw_only=True)
class Note(Record):
    kind = "note"


def declaring(classes):
    class Plugin:
        @hookimpl
        def memory_record_types(self):
            return classes

    return Plugin()


class TestDiscovery:
    def test_finds_a_plugin_with_its_distribution_and_hooks(self, installed):
        installed.plugin("acme-store", backend("acme"), version="2.3")
        registry = PluginRegistry()
        found = info(registry, "acme_store")
        assert (found.distribution, found.version) == ("acme-store", "2.3")
        assert found.hooks == ("memory_storage_factories",)
        assert found.error is None
        assert "acme" in registry.storages

    def test_the_core_is_a_plugin_like_any_other(self):
        registry = PluginRegistry(discover=False)
        (core,) = registry.plugins()
        assert core.distribution == "memory-core"
        assert list(registry.storages) == ["inmemory"]
        assert "episode" in registry.record_types
        assert {"tau-bench", "swe-agent"} <= {name.replace("_", "-") for name in registry.importers}

    def test_registries_share_nothing(self, installed):
        installed.plugin("acme-store", backend("acme"))
        one, other = PluginRegistry(blocked=["acme_store"]), PluginRegistry()
        assert "acme" not in one.storages
        assert "acme" in other.storages

    def test_a_distribution_found_twice_on_the_path_counts_once(self, installed, monkeypatch):
        installed.plugin("acme-store", backend("acme"))
        monkeypatch.syspath_prepend(sys.path[0])
        assert info(PluginRegistry(), "acme_store").error is None

    def test_of_two_copies_of_a_distribution_the_first_on_the_path_counts(
        self, tmp_path, monkeypatch
    ):
        Installed(tmp_path / "later", monkeypatch).plugin("acme-twice", backend("old"))
        Installed(tmp_path / "first", monkeypatch).plugin(
            "acme-twice", backend("new"), version="2.0"
        )
        registry = PluginRegistry()
        (info,) = (info for info in registry.plugins() if info.distribution == "acme-twice")
        assert (info.version, info.error) == ("2.0", None)
        assert "new" in registry.storages
        assert "old" not in registry.storages

    def test_blocked_plugins_are_listed_and_not_imported(self, installed):
        installed.plugin("acme-store", "raise SystemExit('imported')")
        registry = PluginRegistry(blocked=["acme_store"])
        found = info(registry, "acme_store")
        assert found.blocked
        assert "acme_store" not in sys.modules


class TestBrokenPlugins:
    @pytest.mark.parametrize(
        ("source", "why"),
        [
            ("import a_module_that_is_not_there", "ModuleNotFoundError"),
            ("1 / 0", "ZeroDivisionError"),
            ("def broken(:", "SyntaxError"),
            ("import sys; sys.exit(3)", "SystemExit: 3"),
        ],
    )
    def test_one_that_fails_to_import_is_reported_and_takes_no_other_down(
        self, installed, source, why
    ):
        installed.plugin("acme-broken", source)
        installed.plugin("acme-store", backend("acme"))
        registry = PluginRegistry()
        assert why in info(registry, "acme_broken").error
        assert "acme" in registry.storages

    def test_a_misspelled_hook_is_reported(self, installed):
        installed.plugin(
            "acme-typo",
            """
            from memory_core import hookimpl

            @hookimpl
            def memory_storage_factory():
                return {}
            """,
        )
        found = info(PluginRegistry(), "acme_typo")
        assert "memory_storage_factory" in found.error
        assert "valid: memory_storage_factories, memory_cache_factories, " in found.error
        assert "did you mean 'memory_storage_factories'?" in found.error
        assert found.hooks == ()

    def test_a_misspelled_hook_of_a_registered_plugin_is_an_error(self):
        class Typo:
            @hookimpl
            def memory_caches(self):
                return {}

        registry = PluginRegistry(discover=False)
        with pytest.raises(PluginError, match="memory_caches"):
            registry.register(Typo(), name="typo")
        registry.register(object(), name="typo")
        assert info(registry, "typo").error is None

    @pytest.mark.parametrize(
        ("hook", "attribute"),
        [
            ("memory_storage_factories", "storages"),
            ("memory_cache_factories", "caches"),
            ("memory_wrapper_factories", "wrappers"),
            ("memory_importers", "importers"),
            ("memory_extractors", "extractors"),
            ("memory_cli_commands", "cli_commands"),
            ("memory_record_types", "record_types"),
        ],
    )
    @pytest.mark.parametrize(
        "body", ["raise OSError('no disk')", "raise SystemExit", "return None", "return 5"]
    )
    def test_a_hook_that_fails_is_reported_and_takes_no_other_down(
        self, installed, hook, attribute, body
    ):
        installed.plugin(
            "acme-broken",
            f"""
            from memory_core import hookimpl

            @hookimpl
            def {hook}():
                {body}
            """,
        )
        registry = PluginRegistry()
        without = PluginRegistry(blocked=["acme_broken"])
        found, expected = getattr(registry, attribute), getattr(without, attribute)
        assert hook in info(registry, "acme_broken").error
        if attribute == "record_types":
            found, expected = found.kinds, expected.kinds
        assert list(found) == list(expected)

    def test_what_is_no_factory_and_no_record_is_reported(self):
        class Wrong:
            @hookimpl
            def memory_storage_factories(self):
                return {"wrong": "acme:Store"}

            @hookimpl
            def memory_record_types(self):
                return [dict]

        registry = PluginRegistry(discover=False)
        registry.register(Wrong(), name="wrong")
        assert "wrong" not in registry.storages
        assert "StorageFactory" in info(registry, "wrong").error
        assert "episode" in registry.record_types
        assert "subclass of Record" in info(registry, "wrong").error

    def test_an_unknown_scheme_names_the_installed_ones_and_the_broken_plugins(self, installed):
        installed.plugin("acme-broken", "import a_module_that_is_not_there")
        with pytest.raises(ConfigurationError) as caught:
            PluginRegistry().storage("acme")
        assert "inmemory" in str(caught.value)
        assert "acme_broken" in str(caught.value)
        assert "a_module_that_is_not_there" in str(caught.value)

    def test_a_wrong_declaration_leaves_out_its_plugin_alone(self):
        @frozen(kw_only=True)
        class Unordered(Record):
            kind = "unordered"
            default_order = "nothing"

        @frozen(kw_only=True)
        class Refers(Record):
            kind = "refers"
            indexes = (Index("note_id", UUID),)
            references = (Reference("note_id", "note"),)
            note_id: UUID = field(factory=new_id)

        registry = PluginRegistry(discover=False)
        for name, classes in (
            ("wrong", [Unordered]), ("taken", [type("Other", (Record,), {"kind": "episode"})]),
            ("later", [Refers]), ("noted", [Note]),
        ):  # fmt: skip
            registry.register(declaring(classes), name=name)
        assert {"refers", "note"} <= set(registry.record_types.kinds)
        assert "unordered" not in registry.record_types
        assert registry.record_types.cls("episode") is Episode
        assert "'nothing' must be a single-valued index" in info(registry, "wrong").error
        assert "both claim kind 'episode'" in info(registry, "taken").error
        assert [found.name for found in registry.failed()] == ["taken", "wrong"]

    def test_a_command_that_typer_did_not_make_is_reported(self):
        class Commands:
            @hookimpl
            def memory_cli_commands(self):
                return {"mine": print}

        registry = PluginRegistry(discover=False)
        registry.register(Commands(), name="mine")
        assert registry.cli_commands == {}
        assert "'mine': expected a Typer" in info(registry, "mine").error


class TestClashes:
    def test_the_second_of_two_entry_points_of_one_name_can_be_listed(self, installed):
        installed.plugin("acme-one", backend("one"), entry="acme")
        installed.plugin("acme-two", backend("two"), entry="acme")
        registry = PluginRegistry(strict=False)
        one, two = (found for found in registry.plugins() if found.name == "acme")
        assert (one.distribution, one.error) == ("acme-one", None)
        assert "one of acme-one 1.0, one of acme-two 1.0" in two.error
        assert "one" in registry.storages

    def test_two_entry_points_of_one_name_name_both_distributions(self, installed):
        installed.plugin("acme-one", backend("one"), entry="acme")
        installed.plugin("acme-two", backend("two"), entry="acme")
        with pytest.raises(PluginError) as caught:
            PluginRegistry()
        assert "acme-one" in str(caught.value)
        assert "acme-two" in str(caught.value)
        assert info(PluginRegistry(blocked=["acme"]), "acme").blocked

    def test_two_backends_of_one_scheme_name_both_distributions(self, installed):
        installed.plugin("acme-one", backend("acme"))
        installed.plugin("acme-two", backend("acme"))
        registry = PluginRegistry()
        with pytest.raises(PluginError) as caught:
            registry.storage("acme")
        assert "acme-one" in str(caught.value)
        assert "acme-two" in str(caught.value)
        assert PluginRegistry(blocked=["acme_two"]).storage("acme").summary == "none"

    def test_two_classes_of_one_kind_name_both_plugins(self):
        @frozen(kw_only=True)
        class Other(Record):
            kind = "note"

        registry = PluginRegistry(discover=False)
        registry.register(declaring([Note]), name="first")
        assert registry.record_types.cls("note") is Note
        registry.register(declaring([Other]), name="second")
        with pytest.raises(PluginError) as caught:
            _ = registry.record_types
        assert "first" in str(caught.value)
        assert "second" in str(caught.value)

    def test_a_name_is_registered_once(self):
        registry = PluginRegistry(discover=False)
        registry.register(object(), name="mine")
        with pytest.raises(PluginError, match="mine"):
            registry.register(object(), name="mine")
        with pytest.raises(PluginError, match="core"):
            registry.register(object(), name="core")


class Partial:
    """A backend that is not finished."""

    namespace = "default"

    @classmethod
    async def open(cls, location, *, config, context):
        del location, config, context
        return cls()

    async def get(self, kind, ids):
        del kind
        return [None for _ in ids]


class Unwipeable(InMemoryStorage):
    """Declares namespaces without the members for them."""

    wipe = property()


LACKING = "capabilities, commit, query, count, position, changes, scoped, stats, aclose"


class Unopened:
    """A backend that is hardly begun."""


class TestDistributionsOfThisProject:
    @pytest.fixture
    def without(self, monkeypatch):
        def hide(*names):
            monkeypatch.setattr(
                "memory_core.plugins.distributions",
                lambda: [item for item in distributions() if item.name not in names],
            )
            return PluginRegistry()

        return hide

    def test_what_is_not_installed_is_said_to_be_in_its_distribution(self, without):
        registry = without("memory-storage-jsonl", "memory-cache-redis")
        with pytest.raises(ConfigurationError, match=r"pip install .*memory-storage-jsonl"):
            registry.storage("jsonl")
        with pytest.raises(ConfigurationError, match=r"pip install .*memory-cache-redis"):
            registry.cache("redis")
        with pytest.raises(ConfigurationError) as caught:
            registry.storage("mongodb")
        assert "pip install" not in str(caught.value)

    def test_what_is_blocked_need_not_be_installed(self):
        blocked = [
            item.name
            for item in PluginRegistry().plugins()
            if item.distribution == "memory-storage-jsonl"
        ]
        if not blocked:
            pytest.skip("memory-storage-jsonl is not installed")
        with pytest.raises(ConfigurationError, match="the settings block its plugin") as caught:
            PluginRegistry(blocked=blocked).storage("jsonl")
        assert "pip install" not in str(caught.value)


class TestLoading:
    @pytest.mark.parametrize(
        ("cls", "said"),
        [
            (Partial, f":Partial) opened no Storage: it lacks {LACKING}"),
            (Unwipeable, ":Unwipeable) declares NAMESPACES, but lacks wipe"),
            (Unopened, ":Unopened) has no classmethod open, which makes a Storage"),
        ],
    )
    async def test_a_backend_that_lacks_members_is_refused_with_their_names(self, cls, said):
        class Plugin:
            @hookimpl
            def memory_storage_factories(self):
                return {
                    "acme": StorageFactory(
                        target=f"{__name__}:{cls.__name__}",
                        config="memory_core.inmemory:InMemoryConfig",
                        summary="unfinished",
                        spi=2,
                    )
                }

        registry = PluginRegistry(discover=False)
        registry.register(Plugin(), name="acme")
        with pytest.raises(PluginError) as caught:
            await open_storage("acme:", registry=registry)
        assert str(caught.value) == f"the storage backend 'acme' ({__name__}{said}"

    @pytest.mark.parametrize(
        ("stated", "upgrade"), [({}, "the plugin"), ({"spi": 3}, "memory-core")]
    )
    async def test_a_backend_of_another_version_of_the_contract_is_refused(self, stated, upgrade):
        class Plugin:
            @hookimpl
            def memory_storage_factories(self):
                return {
                    "acme": StorageFactory(
                        target="memory_core.inmemory:InMemoryStorage",
                        config="memory_core.inmemory:InMemoryConfig",
                        summary="written earlier, or later",
                        **stated,
                    )
                }

        registry = PluginRegistry(discover=False)
        registry.register(Plugin(), name="acme")
        said = (
            f"the storage backend 'acme' (memory_core.inmemory) is of version {stated.get('spi', 1)} of "
            f"the storage contract, and this memory-core of version {SPI_VERSION}: upgrade {upgrade}"
        )
        with pytest.raises(PluginError) as caught:
            await open_storage("acme:x", registry=registry)
        assert str(caught.value) == said
        assert info(registry, "acme").error == said
        assert info(registry, "core").error is None

    async def test_a_backend_that_cannot_be_loaded_names_its_extra(self):
        class Plugin:
            @hookimpl
            def memory_storage_factories(self):
                return {
                    "acme": StorageFactory(
                        target="a_module_that_is_not_there:Store",
                        config="memory_core.inmemory:InMemoryConfig",
                        summary="a server",
                        embedded=False,
                        extra="acme",
                        spi=2,
                    )
                }

        registry = PluginRegistry(discover=False)
        registry.register(Plugin(), name="acme")
        with pytest.raises(PluginError, match=r"pip install .*\[acme\]") as caught:
            await open_storage("acme://host", registry=registry)
        assert isinstance(caught.value.__cause__, ImportError)

    @pytest.mark.parametrize(
        ("url", "proposed"),
        [
            ("libsql:my-db.turso.io", "libsql://my-db.turso.io"),
            ("turso+https:memory.example", "turso+https://memory.example"),
            ("turso+http:127.0.0.1:8080?tls=0", "turso+http://127.0.0.1:8080"),
            ("turso+ws:/memory.example/a", "turso+ws://memory.example/a"),
            ("turso+wss:///memory.example", "turso+wss://memory.example"),
            ("libsql:ana:hunter2@my-db.turso.io", "libsql://my-db.turso.io"),
            ("libsql:", "libsql://HOST"),
            ("libsql://", "libsql://HOST"),
        ],
    )
    async def test_a_server_without_a_host_is_not_taken_for_a_file(
        self, url, proposed, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigurationError) as caught:
            await open_storage(url)
        assert str(caught.value) == f"{proposed.partition(':')[0]}: needs a host: {proposed}"
        assert not list(tmp_path.iterdir())

    def test_what_is_to_be_installed_comes_from_the_clone_where_this_is_one(self, monkeypatch):
        clone = Path(__file__).parents[2]
        assert install_command("memory-cache-redis") == (
            f"pip install {clone / 'plugins' / 'memory-cache-redis'}"
        )
        assert install_command(extra="turso") == f"pip install '{clone}[turso]'"
        monkeypatch.setattr("memory_core.plugins.__file__", "/nowhere/memory_core/plugins.py")
        assert install_command("memory-cache-redis") == "pip install memory-cache-redis"
        assert install_command(extra="turso") == "pip install 'memory-core[turso]'"

    async def test_a_misspelt_scheme_is_asked_about(self):
        with pytest.raises(ConfigurationError, match="did you mean 'inmemory'") as caught:
            await open_storage("inmem:")
        assert "pip install" not in str(caught.value)

    def test_a_class_is_loaded_by_its_path(self):
        assert load_class("memory_core.records:Episode") is Episode
        with pytest.raises(PluginError, match=r"memory_core\.records:Nothing"):
            load_class("memory_core.records:Nothing")

    def test_what_is_registered_later_is_seen(self):
        registry = PluginRegistry(discover=False)
        assert "note" not in registry.record_types

        class Plugin:
            @hookimpl
            def memory_record_types(self):
                return [Note]

        registry.register(Plugin(), name="notes")
        assert "note" in registry.record_types
