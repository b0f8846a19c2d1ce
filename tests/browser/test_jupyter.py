"""A live figure with a kernel: its traits go both ways, and in JupyterLab it is alive."""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from playwright.sync_api import TimeoutError

from _extensions.chromium import Tab
from mixer.widgets import MixerFlow

MAKE = """
import torch
from mixer import shipped_weights
from mixer.widgets import MixerFlow
flow = MixerFlow(shipped_weights("digits-1"), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code):
    """Run code in the kernel: what it printed, and the messages on its comms."""
    printed, comms = [], []

    def note(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
        elif message["msg_type"].startswith("comm_"):
            comms.append(message["content"])

    reply = client.execute_interactive(code, output_hook=note, timeout=120)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed), comms


def test_traits_go_both_ways(kernel):
    _, comms = run(kernel, MAKE)
    (opened,) = (comm for comm in comms if "_esm" in comm.get("data", {}).get("state", {}))
    assert opened["data"]["state"]["_esm"] == MixerFlow._esm
    update = {"comm_id": opened["comm_id"], "data": {"method": "update", "state": {"token": 3}, "buffer_paths": []}}
    kernel.shell_channel.send(kernel.session.msg("comm_msg", update))
    printed, _ = run(kernel, "print(flow.token)")
    assert printed == "3\n"
    _, comms = run(kernel, "flow.token = 1")
    assert {"token": 1} in [comm["data"].get("state") for comm in comms]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a folder with one notebook: its address."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(MAKE + "flow"), nbformat.v4.new_code_cell("flow.token = 2")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "figure.ipynb")
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={tmp_path}"]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]
    own = {"JUPYTER_CONFIG_DIR": tmp_path / "config", "JUPYTER_DATA_DIR": tmp_path / "data"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **{name: str(folder) for name, folder in own.items()}},
    )
    address = next(found[0] for line in server.stderr if (found := re.search(r"http://127\S+token=\w+", line)))
    threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop it
    wait_until_answers(address, server)
    yield address.replace("/lab?", "/lab/tree/figure.ipynb?")
    server.kill()  # while it starts, it takes no other signal
    server.wait(30)


def wait_until_answers(address, server):
    """Wait until a server answers: it writes its address before."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            return opener.open(address, timeout=60).close()
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("JupyterLab ended before it answered")


def dismiss(dialog):
    """Close a dialog of JupyterLab's that came in the way, and say which."""
    print("a dialog:", dialog.inner_text())
    dialog.get_by_role("button").last.click()


def is_second_cell_shown(page, facts):
    """Whether the figure, looked into, says what the second cell set. A cell may yet replace the figure: then again."""
    for _ in range(4):
        with suppress(TimeoutError):
            page.locator("details.mx-inside").last.evaluate("(fold) => (fold.open = true)", timeout=20_000)
            facts.get_by_text("token 2 is mixed").wait_for(timeout=5_000)
            return True
    return False


def test_it_is_alive_in_jupyterlab(browser, lab):
    page = Tab(browser).page
    page.goto(lab)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=120_000)  # the kernel is there
    facts = page.locator(".mx p[role=status]")
    page.add_locator_handler(page.locator("dialog.jp-Dialog"), dismiss)
    for _ in range(4):  # while JupyterLab still restores the page's widgets, it can lose a change: then run them again
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
        if is_second_cell_shown(page, facts):
            break
    facts.get_by_text("token 2 is mixed").wait_for()
    page.locator(".mx").get_by_role("slider", name="Token").press("ArrowRight")
    facts.get_by_text("token 3 is mixed").wait_for()
    assert page.locator(".mx canvas").first.evaluate("c => c.getContext('2d').getImageData(0, 0, 1, 1).data[3]") == 255
    page.close()


COLAB = """
import sys, types
output = types.ModuleType("google.colab.output")
calls = []
output.enable_custom_widget_manager = lambda: calls.append("enabled")
output._widgets = types.SimpleNamespace(_installed_url="https://example.org/manager.js")
sys.modules |= {"google": types.ModuleType("google"), "google.colab": types.ModuleType("google.colab")}
sys.modules["google.colab.output"] = output
"""


def test_on_colab_it_asks_for_the_widget_manager(kernel):
    """With a stand-in for the module of Colab: a figure is shown as a widget, by the manager that Colab names."""
    show = "data, about = flow._repr_mimebundle_(); view = 'application/vnd.jupyter.widget-view+json'\n"
    printed, _ = run(kernel, COLAB + MAKE + show + "print(calls, view in data, about[view])")
    address = {"colab": {"custom_widget_manager": {"url": "https://example.org/manager.js"}}}
    assert printed == f"['enabled'] True {address}\n"
    run(kernel, "for name in [name for name in sys.modules if name.startswith('google')]: del sys.modules[name]")
