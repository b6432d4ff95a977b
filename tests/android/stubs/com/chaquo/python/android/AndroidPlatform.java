package com.chaquo.python.android;

import com.chaquo.python.Python;
import android.content.Context;

/** Source: https://chaquo.com/chaquopy/doc/current/java/com/chaquo/python/android/AndroidPlatform.html */
public class AndroidPlatform implements Python.Platform {
    public AndroidPlatform(Context context) {
        throw new UnsupportedOperationException();
    }
    @Override
    public String getPath() {
        throw new UnsupportedOperationException();
    }
}
