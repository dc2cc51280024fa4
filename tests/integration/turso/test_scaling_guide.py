"""What ``docs/scaling.md`` shows runs, on real servers."""

from __future__ import annotations

import ast
import re
from contextlib import AsyncExitStack
from pathlib import Path

from tests.conftest import ROOT
from tests.servers.sqld import running_sqld

GUIDE = ROOT / "docs" / "scaling.md"


async def test_examples_run(tmp_path: Path, capsys) -> None:
    sources = re.findall(
        r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(sources) == 3
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(running_sqld(tmp_path / "primary"))
        replica = await stack.enter_async_context(
            running_sqld(tmp_path / "replica", primary_grpc=primary.grpc_port)
        )
        tenants = await stack.enter_async_context(
            running_sqld(tmp_path / "tenants", namespaces=True)
        )
        for source in sources:
            known = {
                "url": tenants.http_url if "TenantStorage" in source else primary.http_url,
                "replicas": [replica.http_url],
                "admin_url": f"http://127.0.0.1:{tenants.admin_port}",
            }
            code = compile(source, str(GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            await eval(code, known)
    assert 0 <= float(capsys.readouterr().out) <= 1
