"""Messages from accounts to phones and back."""
