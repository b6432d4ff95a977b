package app.edgespec.demo;

import android.content.Context;
import android.graphics.Typeface;
import android.text.SpannableString;
import android.text.Spanned;
import android.text.style.BackgroundColorSpan;
import android.view.LayoutInflater;
import android.view.View;
import android.view.ViewGroup;
import android.widget.BaseAdapter;
import android.widget.TextView;
import app.edgespec.bridge.Message;
import java.util.List;

/** The messages of a conversation, with what was drafted tinted. */
final class MessageList extends BaseAdapter {
    private final LayoutInflater inflater;
    private final int tint;
    private List<Message> messages = List.of();

    MessageList(Context context) {
        inflater = LayoutInflater.from(context);
        tint = context.getColor(R.color.drafted);
    }

    void show(List<Message> messages) {
        this.messages = messages;
        notifyDataSetChanged();
    }

    @Override
    public int getCount() {
        return messages.size();
    }

    @Override
    public Message getItem(int position) {
        return messages.get(position);
    }

    @Override
    public long getItemId(int position) {
        return position;
    }

    @Override
    public View getView(int position, View old, ViewGroup parent) {
        View view = old == null ? inflater.inflate(R.layout.message, parent, false) : old;
        TextView text = (TextView) view;
        Message message = getItem(position);
        boolean isQuestion = message.role.equals(Message.USER);
        text.setTypeface(isQuestion ? Typeface.DEFAULT_BOLD : Typeface.DEFAULT);
        text.setText(tinted(message));
        return view;
    }

    private SpannableString tinted(Message message) {
        List<int[]> drafted = message.drafted();
        SpannableString text = new SpannableString(message.text());
        for (int[] part : drafted) {
            BackgroundColorSpan span = new BackgroundColorSpan(tint);
            text.setSpan(span, part[0], part[1], Spanned.SPAN_EXCLUSIVE_EXCLUSIVE);
        }
        return text;
    }
}
