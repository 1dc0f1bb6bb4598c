// Control: the control socket's messages, as codecs: no sockets, no stack.

public enum ControlModule {}
