package com.chaquo.python;

import java.util.Map;

/** Source: https://chaquo.com/chaquopy/doc/current/java/com/chaquo/python/PyObject.html */
public class PyObject {
    private PyObject() {}
    public PyObject callAttr(String key, Object... args) {
        throw new UnsupportedOperationException();
    }
    public Map<PyObject, PyObject> asMap() {
        throw new UnsupportedOperationException();
    }
    public PyObject get(Object key) {
        throw new UnsupportedOperationException();
    }
    public PyObject type() {
        throw new UnsupportedOperationException();
    }
    public boolean toBoolean() {
        throw new UnsupportedOperationException();
    }
    public long toLong() {
        throw new UnsupportedOperationException();
    }
    public double toDouble() {
        throw new UnsupportedOperationException();
    }
}
