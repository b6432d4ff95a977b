package android.widget;

/** Source: https://developer.android.com/reference/android/widget/Button */
public class Button extends TextView {
}
