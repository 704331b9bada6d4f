"""Eclipse Paho for Python as a device: frames of our own SDK at QoS 1, then the verdict. Arguments: port, key, 3 or 5."""
import json, sys, threading, time
sys.path.insert(0, sys.argv[4])
import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from vitalog_device import Device, series

port, version = int(sys.argv[1]), {"3": mqtt.MQTTv311, "5": mqtt.MQTTv5}[sys.argv[3]]
with open(sys.argv[2], "rb") as pem:
    device = Device(load_pem_private_key(pem.read(), None))
done = threading.Event()


def on_message(client, _, message):
    told = json.loads(message.payload)
    if told["acked_to"] and told["acked_to"]["boot"] == device.boot.hex() and told["acked_to"]["seq"] == 2:
        done.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=version)
client.on_message = on_message
client.on_connect = lambda client, *_: client.subscribe(f"v1/d/{device.short_id}/verdict", qos=1)
client.connect("127.0.0.1", port, keepalive=10)
client.loop_start()
now_us = time.time_ns() // 1000
for n in range(3):
    frame = device.frame([series(1, "u8", [60 + n], 1_000_000)], now_us + n, n)
    client.publish(f"v1/d/{device.short_id}/frames", frame, qos=1).wait_for_publish(10)
ok = done.wait(10)
client.disconnect()
client.loop_stop()
print("verdict seq 2" if ok else "no verdict")
