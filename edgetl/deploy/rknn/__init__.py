"""Models for the NPUs of Rockchip's boards, by the vendor's toolkit."""
