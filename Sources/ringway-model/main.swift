print("ringway-model")
