package com.chaquo.python;

/** Source: https://chaquo.com/chaquopy/doc/current/java/com/chaquo/python/Python.html */
public class Python {
    private Python() {}
    public static Python getInstance() {
        throw new UnsupportedOperationException();
    }
    public static boolean isStarted() {
        throw new UnsupportedOperationException();
    }
    public static void start(Platform platform) {
        throw new UnsupportedOperationException();
    }
    public PyObject getModule(String name) {
        throw new UnsupportedOperationException();
    }
    // Source: https://chaquo.com/chaquopy/doc/current/java/com/chaquo/python/Python.Platform
    public interface Platform {
        String getPath();
    }
}
