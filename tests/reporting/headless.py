"""A headless Chromium, driven through the pipe of its DevTools protocol: no package is needed for it."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

SECONDS = 60
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium():
    """Its path, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One window."""

    def __init__(self, profile, width=1300, height=900):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def wire():
            # The protocol's pipes are descriptors 3 and 4, which the originals may be: moved out of the way first.
            ends = os.dup(to_browser), os.dup(from_browser)
            for end, place in zip(ends, (3, 4), strict=True):
                os.dup2(end, place)

        options = ["--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
        self._process = subprocess.Popen(
            [find_chromium(), *options, f"--user-data-dir={profile}"],
            preexec_fn=wire,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._buffer, self.events, self._session = 0, b"", [], None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def send(self, method, **params):
        """Call a method of the protocol; what it returns."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], SECONDS)[0]:
                raise RuntimeError(f"The browser says nothing for {SECONDS} s.")
            read = os.read(self._read, 1 << 20)
            if not read:
                raise RuntimeError("The browser has ended.")
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(message)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path):
        """Open a file, and wait until it is loaded."""
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def run(self, script):
        """The value of an expression, awaited where it is a promise."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", str(found)))
        return found["result"].get("value")

    def wait_for(self, script, seconds=20):
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f"!!({script})"):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)

    def press(self, key, shift=False):
        """Press a key, by its DOM name, and let it go."""
        codes = {"Enter": ("\r", 13), "Tab": ("", 9), " ": (" ", 32)}
        text, code = codes.get(key, (key if len(key) == 1 else "", 0))
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "End": 35, "Home": 36}
        code = codes.get(key, code)
        modifiers = 8 if shift else 0
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def mouse(self, kind, x, y, buttons=0):
        """Send a mouse event: moved, pressed or released, at a place of the window."""
        button = "left" if kind != "moved" or buttons else "none"
        self.send(
            "Input.dispatchMouseEvent", type=f"mouse{kind.capitalize()}", x=x, y=y, button=button, buttons=buttons,
            clickCount=1,
        )  # fmt: skip

    def resize(self, width, height, phone=False):
        """Set the window's size."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def theme(self, name):
        """Let the system prefer "light" or "dark"."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path, whole=False):
        """Save what is seen, or the whole page, as PNG."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def errors(self):
        """What the console complained of, and what was asked of the network, since the page was opened."""
        for _ in range(2):
            self.run("0")  # events come before the answer
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["exception"].get("description", str(params)))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif event["method"] == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:", "about:")):
                    found.append(f"asked the network for {url}")
        return found

    def close(self):
        """End the browser."""
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._read)
        os.close(self._write)
