"""What a plugin can do that is nothing good."""

from towpath_sdk import Config, Descriptor, Element, OptionSpec, PluginError


def deep(depth):
    return 1 + deep(depth + 1)


def hog():
    held = []
    while True:
        held.append(bytearray(1 << 20))


def act(at):
    """Does what the options say (`how`) in the function that they say (`at`)."""
    config = Config()
    if config.text("at") != at:
        return None
    match config.text("how"):
        case "loop":
            while True:
                pass
        case "throw":
            raise ValueError("on purpose")
        case "exit":
            raise SystemExit("on purpose")
        case "stack":
            return deep(0)
        case "hog":
            return hog()
        case "nonsense":
            return object()
        case "retry":
            raise PluginError.retry("HOSTILE", "later", delay_ms=7000)
        case "operator":
            raise PluginError.needs_operator("HOSTILE", "not with these", "others")
        case "terminal":
            raise PluginError.terminal("HOSTILE", "no more")
    return None


CALLS = [0]


def describe(name):
    """Loops in the call whose number is in the module: 9, unless a test puts another in its place."""
    call = f"descriptor {CALLS[0]}"
    CALLS[0] += 1
    while call == "descriptor 9":
        pass
    return (
        Descriptor(name, "0.1.0", "Does what it is told")
        .option(OptionSpec("at", Element.text(), "Where to do it."))
        .option(OptionSpec("how", Element.text(), "What to do."))
    )
