package android.app;

import android.content.Intent;
import android.os.Bundle;
import android.view.Menu;
import android.view.MenuInflater;
import android.view.MenuItem;
import android.view.View;
import android.content.Context;

/** Source: https://developer.android.com/reference/android/app/Activity */
public class Activity extends Context {
    public static final int RESULT_OK = -1;
    protected void onCreate(Bundle savedInstanceState) {}
    protected void onResume() {}
    protected void onPause() {}
    public boolean onCreateOptionsMenu(Menu menu) {
        throw new UnsupportedOperationException();
    }
    public boolean onPrepareOptionsMenu(Menu menu) {
        throw new UnsupportedOperationException();
    }
    public boolean onOptionsItemSelected(MenuItem item) {
        throw new UnsupportedOperationException();
    }
    protected void onActivityResult(int requestCode, int resultCode, Intent data) {}
    public void setContentView(int layoutResID) {
        throw new UnsupportedOperationException();
    }
    public <T extends View> T findViewById(int id) {
        throw new UnsupportedOperationException();
    }
    public final Application getApplication() {
        throw new UnsupportedOperationException();
    }
    public MenuInflater getMenuInflater() {
        throw new UnsupportedOperationException();
    }
    public void startActivityForResult(Intent intent, int requestCode) {
        throw new UnsupportedOperationException();
    }
    public final void requestPermissions(String[] permissions, int requestCode) {
        throw new UnsupportedOperationException();
    }
    public boolean isFinishing() {
        throw new UnsupportedOperationException();
    }
    public boolean isDestroyed() {
        throw new UnsupportedOperationException();
    }
    public final void runOnUiThread(Runnable action) {
        throw new UnsupportedOperationException();
    }
}
